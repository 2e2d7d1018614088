"""A training that is stopped here goes on there, to the bit."""

import io

import pytest
import torch
from patch_material import Net, assert_same, bound, evaluator_of, net, train
from torch import nn

from rebind import BindError, bind

SCHEDULES = {
    "none": None,
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12),
    "one cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=40),
}
OPTIMIZERS = {
    "momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.05),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_resumed_training_is_bit_equal_to_one_in_a_single_run(make, schedule):
    """Dropout, batch norm, momentum and the schedule go on; through a file that torch.load reads as it is."""
    options = {"make": OPTIMIZERS[make], "schedule": SCHEDULES[schedule]}
    with bound(**options) as straight:
        straight.train(7)
        straight.train(9)
        with bound(**options) as first:
            first.train(7)
            file = io.BytesIO()
            torch.save(first.state_dict(), file)
        torch.manual_seed(99)
        with bind(evaluator_of(net(), **options), net(5)) as second:
            file.seek(0)
            second.load_state_dict(torch.load(file))
            assert second.steps == 7
            second.train(9)
            assert second.steps == straight.steps == 16
            assert_same(second.model, straight.model)
            for ours, theirs in zip(second.lr_schedulers, straight.lr_schedulers, strict=True):
                assert ours.last_epoch == theirs.last_epoch


def test_a_state_is_a_copy_that_training_does_not_change():
    """So a binding can be rewound, any number of times."""
    with bound() as binding:
        binding.train(3)
        state = binding.state_dict()
        runs = []
        for _ in range(3):
            binding.train(4)
            runs.append({name: value.clone() for name, value in binding.model.state_dict().items()})
            binding.load_state_dict(state)
            assert binding.steps == 3
    for run in runs[1:]:
        assert all(torch.equal(value, runs[0][name]) for name, value in run.items())


def test_parameters_that_joined_resume_also_where_they_are_in_no_model():
    """Their values and their momentum are in the state."""
    results = []
    for interrupted in (False, True):
        with bound() as binding:
            scale = nn.Parameter(torch.ones(1))
            binding.add_parameters({"fc2": [scale]})
            binding.patch_loss(lambda loss, out, y, scale=scale: loss + ((out * scale - y) ** 2).mean())
            binding.train(4)
            state = binding.state_dict()
            if interrupted:
                binding.train(5)
                binding.load_state_dict(state)
            binding.train(3)
            results.append((scale.detach().clone(), binding.model.fc2.weight.detach().clone()))
    assert all(map(torch.equal, *results))


class Wider(Net):
    def __init__(self):
        super().__init__()
        self.fc2 = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda state: state.pop("random"), "lacks random"),
        (lambda state: state.update(format=99), "format 99"),
        (lambda state: state["optimizers"].clear(), "0 optimizers"),
        (lambda state: state["model"].pop("fc1.weight"), "fc1.weight"),
        (lambda state: state["model"].update({"fc1.weight": torch.ones(9, 9)}), r"shape \(9, 9\)"),
        (lambda state: state["added"].update(extra=torch.ones(1)), "extra"),
        (
            lambda state: state["optimizers"][0]["state"][0].update(momentum_buffer=torch.ones(9, 9)),
            "momentum_buffer",
        ),
        (lambda state: state["optimizers"][0]["param_groups"][0]["params"].pop(), "parameters"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(spoil, text):
    with bound() as binding:
        binding.train(2)
        state = binding.state_dict()
        spoil(state)
        before = {name: value.clone() for name, value in binding.model.state_dict().items()}
        with pytest.raises(BindError, match=text):
            binding.load_state_dict(state)
        assert all(torch.equal(value, before[name]) for name, value in binding.model.state_dict().items())
        assert binding.steps == 2


def test_a_state_is_not_loaded_while_a_training_runs():
    with bound(training_func=train) as binding:
        state = binding.state_dict()
        binding.after_step(lambda: binding.load_state_dict(state))
        with pytest.raises(BindError, match="before the training has ended"):
            binding.train(1)
