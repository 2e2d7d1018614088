"""Defects 25 to 37 of the system that rebind replaces: validation, life cycle, patches."""

import collections
import contextlib
import dataclasses
import gc
import subprocess
import sys
import weakref

import pytest
import torch
from patch_material import assert_same, bound, evaluator_of, mse, net, sgd, train, train_on
from pydantic import ValidationError
from torch import nn

import rebind
from rebind import BindError, TorchEvaluator, bind, trace
from rebind.testing import assert_pristine


def test_25_validation_holds_under_python_minus_o():
    code = (
        "import torch, rebind\n"
        "try: rebind.TorchEvaluator(None, [], 42)\n"
        "except ValueError as error: print(error.error_count())\n"
    )
    run = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) >= 2


def test_26_callables_are_checked_when_the_evaluator_is_created():
    optimizer = trace(sgd)(list(net().parameters()))
    with pytest.raises(ValidationError) as caught:
        TorchEvaluator(None, optimizer, training_step=42)
    places = {error["loc"][0] for error in caught.value.errors()}
    assert {"training_func", "training_step"} <= places


def test_27_an_empty_list_of_optimizers_is_refused_when_the_evaluator_is_created():
    with pytest.raises(ValidationError, match="optimizer"):
        TorchEvaluator(train, [], mse)


def test_28_a_failed_bind_leaves_the_evaluator_usable_and_the_model_untouched():
    evaluator, stranger = evaluator_of(net()), nn.Sequential(nn.Linear(2, 1))
    for _ in range(2):
        with assert_pristine(stranger), pytest.raises(BindError):
            bind(evaluator, stranger)
    with bind(evaluator, net(3)) as binding:
        binding.train(2)
        assert binding.steps == 2


def test_29_an_exception_in_training_leaves_no_patch_and_no_hook():
    model = net()
    with assert_pristine(model), pytest.raises(ZeroDivisionError), bound(model) as binding:
        optimizer = binding.optimizers[0]
        binding.patch_loss(lambda loss: loss / 0 if binding.steps == 2 else loss)
        binding.forward_hook("fc1", lambda *_: None)
        binding.after_step(lambda: 1 // (2 - binding.steps))
        binding.train(5)
    assert not optimizer._optimizer_step_post_hooks
    assert binding.criterion is mse


def test_30_a_pickled_evaluator_is_small_and_works_before_and_after_its_first_use():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1000, 10_000, bias=False))
    evaluator = evaluator_of(model)
    first = rebind.dumps(evaluator)
    with bind(evaluator, model):
        bound_bytes = rebind.dumps(evaluator)
    assert max(len(first), len(bound_bytes)) < 10_000
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
    loaded = rebind.loads(first, trusted=True)
    with bind(loaded, nn.Sequential(nn.Linear(2, 3, bias=False))) as binding:
        assert len(binding.optimizers[0].param_groups[0]["params"]) == 1


def test_31_one_evaluator_serves_any_number_of_models_one_after_another_and_side_by_side():
    evaluator = evaluator_of(net())
    bindings = [bind(evaluator, net(seed)) for seed in range(3)]
    for binding in bindings:
        torch.manual_seed(1)
        binding.train(3)
    for seed, binding in enumerate(bindings):
        with bind(evaluator, net(seed)) as alone:
            torch.manual_seed(1)
            alone.train(3)
        assert_same(binding.model, alone.model)
        binding.close()


class Empty(nn.Module):
    """A module of length 0, which is falsy."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)

    def __len__(self):
        return 0

    def forward(self, x):
        return self.fc(x)


def test_32_a_model_of_length_0_is_given_back_too():
    model = Empty()
    with assert_pristine(model), bound(model, train_on) as binding:
        binding.forward_hook("", lambda *_: None)
        binding.collect("fc", keep=1)
        model.eval()
        binding.train(max_steps=2)
        assert binding.steps == 2


@dataclasses.dataclass
class Output:
    loss: torch.Tensor


def test_33_a_loss_patch_reaches_the_loss_of_a_dataclass_whatever_the_batch_is_called():
    def loop(model, optimizers, training_step):
        losses.append(training_step(examples=torch.ones(1, 2), network=model).loss)

    def training_step(examples, network):
        return Output(network.eval()(examples).sum())

    losses, seen = [], []
    with bound(training_func=loop, criterion=None, training_step=training_step) as binding:
        binding.patch_loss(lambda loss, batch: (seen.append(batch), loss * 0 + 5)[1])
        binding.train()
    assert losses == [5]
    assert torch.equal(seen[0], torch.ones(1, 2))


def test_34_tasks_run_around_the_steps_of_every_optimizer():
    model, seen = net(), collections.Counter()
    optimizers = [trace(sgd)(list(part.parameters())) for part in (model.fc1, model.fc2)]
    with bind(TorchEvaluator(train, optimizers, mse, model=model), model) as binding:
        binding.before_step(lambda: seen.update(["before"]))
        binding.after_step(lambda: seen.update(["after"]))
        binding.train(3)
    assert seen == {"before": 6, "after": 6}


def test_35_parameters_join_at_the_root_join_once_and_leave_again():
    class Rooted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 1))

        def forward(self, x):
            return x @ self.weight

    model, scale = Rooted(), nn.Parameter(torch.ones(1))
    with bound(model) as binding:
        params = binding.optimizers[0].param_groups[0]["params"]
        with binding.add_parameters({"": [scale]}), binding.add_parameters({"weight": [scale]}):
            assert [id(p) for p in params] == [id(model.weight), id(scale)]
        assert [id(p) for p in params] == [id(model.weight)]


@contextlib.contextmanager
def alone():
    """A process group of one."""
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def test_36_a_wrapper_for_several_processes_is_bound_as_it_is():
    """It is the user's own object, with its own bucket size; nobody builds another one."""
    with alone():
        model = nn.parallel.DistributedDataParallel(net(), bucket_cap_mb=7)
        with bind(evaluator_of(net()), model) as binding:
            binding.train(2)
            assert binding.model is model
            assert model.bucket_bytes_cap == 7 * 1024 * 1024
            assert binding.steps == 2


def test_37_hook_buffers_are_bounded_and_backward_hooks_are_of_the_full_kind():
    with bound(training_func=train_on) as binding:
        outputs = binding.collect("fc1", keep=2)
        mean = binding.collect("fc1", reduce="mean")
        gradients = binding.collect("fc2", keep=3, source="grad_output")
        binding.backward_hook("fc2", lambda *_: None)
        assert binding.model.fc2._is_full_backward_hook is True
        binding.train()
    assert (len(outputs), len(mean), len(gradients)) == (2, 1, 3)
    assert outputs.count == mean.count == gradients.count == 64
