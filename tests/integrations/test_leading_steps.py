"""Tasks once for each step, however many optimizers make it. This needs no NNI."""

import pytest
import torch

from rebind import TorchEvaluator, bind, trace
from rebind.runtime.integrations.nni.leading_steps import LeadingSteps


def network():
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))


def bound(turns):
    """A binding whose training steps the optimizers by their numbers in `turns`."""
    model = network()
    optimizers = [trace(torch.optim.SGD)(layer.parameters(), lr=0.1) for layer in model]

    def train(model, optimizers, criterion):
        for number in turns:
            criterion(model(torch.ones(4, 2)), torch.zeros(4, 1)).backward()
            optimizers[number].step()

    return bind(TorchEvaluator(train, optimizers, torch.nn.functional.mse_loss, model=model), network())


@pytest.mark.parametrize(
    ("turns", "leads"),
    [
        ([0, 0, 0], 3),
        ([1, 1, 1], 3),
        ([0, 1, 0, 1], 2),
        ([1, 0, 1, 0], 2),
        ([0, 0, 0, 1, 0, 0, 0, 1], 6),
        ([0, 1, 1, 1], 3),
        ([], 0),
    ],
)
def test_tasks_run_as_often_as_the_binding_makes_steps(turns, leads):
    """Around the step of whichever optimizer gets ahead."""
    with bound(turns) as binding:
        said = []
        steps = LeadingSteps(binding)
        steps.add([lambda: said.append("before")], [lambda: said.append("after")])
        binding.train()
        assert said == ["before", "after"] * leads
        assert binding.steps == leads
        steps.begin_training()
        binding.train()
        assert said == ["before", "after"] * 2 * leads
        steps.revert()
        binding.train()
        assert len(said) == 4 * leads


def test_another_optimizer_may_lead_in_the_next_training():
    """What was made in trainings before does not count."""
    turns = [0, 0, 0]
    with bound(turns) as binding, LeadingSteps(binding) as steps:
        said = []
        steps.add([], [lambda: said.append("after")])
        binding.train()
        turns[:] = [1, 1]
        steps.begin_training()
        binding.train()
        assert len(said) == 5


def test_what_is_added_last_is_outermost():
    """Lists keep their order; patches nest."""
    with bound([0]) as binding, LeadingSteps(binding) as steps:
        said = []
        for name in "12":
            before = [lambda name=name, part=part: said.append(f"before{name}{part}") for part in "ab"]
            steps.add(before, [lambda name=name: said.append(f"after{name}")])
        binding.train()
        assert said == ["before2a", "before2b", "before1a", "before1b", "after1", "after2"]
