"""What each of two processes does on gloo: `python parallel_jobs.py JOB OPTIMIZER RANK STORE`."""

from __future__ import annotations

import os
import sys
import warnings
from datetime import timedelta

import parallel_material as material
import pytest
import torch
import torch.distributed as dist
from parallel_material import (
    KEPT_OF,
    assert_same,
    assert_same_everywhere,
    evaluator_of,
    net,
    pruned,
    sharded,
    sliced,
    tensors,
    train,
    train_data_parallel,
    whole,
)
from torch import nn
from torch.distributed.tensor import DTensor

import rebind

JOBS = {}
MSE = nn.functional.mse_loss


def job(function):
    JOBS[function.__name__] = function
    return function


@job
def data_parallel_inside_of_the_training_function(make):
    """Trained, pruned, bound again and trained: as without rebind, and alike in both processes."""
    ours, theirs = net(), net()
    with rebind.bind(evaluator_of(train_data_parallel, make), ours) as binding:
        binding.train(max_steps=6)
        train_data_parallel(theirs, *_by_hand(make, theirs, 6))
        assert_same(tensors(ours), tensors(theirs))
        assert_same_everywhere(ours)
        assert_processes_learned_from_each_other(make, ours)

        ours, theirs = pruned(ours), pruned(theirs)
        binding.rebind(ours)
        binding.train(max_steps=4)
        score = binding.evaluate().score
    train_data_parallel(theirs, *_by_hand(make, theirs, 4))
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)
    assert score == material.loss_of(theirs)
    assert len(ours.fc1.weight) == 3


@job
def data_parallel_with_sliced_state(make):
    """After surgery the optimizer goes on with the state of the channels that are left."""
    ours, theirs = net(), net()
    with rebind.bind(evaluator_of(train_data_parallel, make), ours) as binding:
        binding.train(max_steps=6)
        ours = pruned(ours)
        binding.rebind(ours, state="slice", kept=KEPT_OF)
        binding.train(max_steps=4)
    optimizer, scheduler = make(theirs)
    train_data_parallel(theirs, optimizer, MSE, scheduler, 6)
    theirs, optimizer, scheduler = _sliced_by_hand(make, theirs, optimizer, scheduler)
    train_data_parallel(theirs, optimizer, MSE, scheduler, 4)
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)


@job
def data_parallel_with_patches(make):
    """A loss patch and tasks: written by hand into the loop, they give the same bits."""
    seen, theirs_seen = [], []
    ours, theirs = net(), net()

    def before(model, seen):
        seen.append([p.grad.clone() for p in model.parameters()])
        model.fc1.weight.grad.mul_(0.5)

    def after(model):
        model.fc2.weight.data.clamp_(-0.2, 0.2)

    def penalty(model):
        return 0.1 * model.fc1.weight.square().sum()

    def doubled(gradient, grads):
        grads.append(gradient.clone())
        return gradient * 2

    own, theirs_own = [], []
    with rebind.bind(evaluator_of(train_data_parallel, make), ours) as binding:
        binding.gradient_hook("fc2.bias", lambda gradient: doubled(gradient, own))
        outputs = binding.collect("fc1", keep=5)
        binding.patch_loss(lambda loss: loss + penalty(ours))
        binding.before_step(lambda: before(ours, seen))
        binding.after_step(lambda: after(ours))
        binding.train(max_steps=5)

    optimizer, scheduler = make(theirs)
    theirs.fc2.bias.register_hook(lambda gradient: doubled(gradient, theirs_own))
    material.loop(
        nn.parallel.DistributedDataParallel(theirs),
        optimizer,
        lambda *inputs: MSE(*inputs) + penalty(theirs),
        scheduler,
        5,
        before=lambda: before(theirs, theirs_seen),
        after=lambda: after(theirs),
    )
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)
    assert len(seen) == len(theirs_seen) == 5
    for grads, expected in zip(seen, theirs_seen, strict=True):
        assert all(map(torch.equal, grads, expected))
    # What a task sees are the gradients over both processes' rows; a hook sees those of its own.
    for first, second in zip(*_everywhere(seen), strict=True):
        assert all(map(torch.equal, first, second))
    assert len(own) == len(theirs_own) == 5
    assert all(map(torch.equal, own, theirs_own))
    assert not any(map(torch.equal, *_everywhere(own)))
    assert not any(map(torch.equal, *_everywhere(outputs.values())))
    assert ours.fc2.weight.abs().max() <= 0.2


@job
def data_parallel_within_limits(make):
    """A loop that would not end makes exactly the steps that it may, and so again."""
    ours, theirs = net(), net()
    evaluator = evaluator_of(material.train_data_parallel_for_ever, make)
    with rebind.bind(evaluator, ours) as binding:
        binding.train(max_steps=3)
        binding.train(max_steps=2)
        assert binding.steps == 5
    optimizer, scheduler = make(theirs)
    train_data_parallel(theirs, optimizer, MSE, scheduler, 3)
    train_data_parallel(theirs, optimizer, MSE, scheduler, 2)
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)


@job
def sharded_before_it_is_bound(make):
    """Sharded, bound, trained, pruned, sharded, bound and trained again."""
    ours, theirs = sharded(net()), sharded(net())
    with rebind.bind(evaluator_of(train, make), ours) as binding:
        parameters = [p for group in binding.optimizers[0].param_groups for p in group["params"]]
        assert len(parameters) == 6
        assert all(isinstance(parameter, DTensor) for parameter in parameters)
        binding.train(max_steps=6)
        train(theirs, *_by_hand(make, theirs, 6))
        assert_same(tensors(ours), tensors(theirs))
        assert_same_everywhere(ours)
        assert_processes_learned_from_each_other(make, ours)

        ours, theirs = sharded(pruned(ours)), sharded(pruned(theirs))
        binding.rebind(ours)
        binding.train(max_steps=4)
        score = binding.evaluate().score
    optimizer, scheduler = make(theirs)
    train(theirs, optimizer, MSE, scheduler, 4)
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)
    assert score == material.loss_of(theirs)
    # What sharding has put into the model is still there when the binding has gone.
    for model in (ours, theirs):
        train(model, *_by_hand(make, model, 3))
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)


@job
def sharded_with_carried_state(make):
    """A plain run that is sharded half way goes on with its state, as does one that is sharded anew."""
    ours, theirs = sharded(net()), sharded(net())
    with rebind.bind(evaluator_of(train, make), ours) as binding:
        binding.train(max_steps=3)
        ours = _sharded_copy(ours)
        binding.rebind(ours, state="carry")
        binding.train(max_steps=3)
    optimizer, scheduler = make(theirs)
    train(theirs, optimizer, MSE, scheduler, 3)
    train(theirs, optimizer, MSE, scheduler, 3)
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)


@job
def sharded_with_sliced_state(make):
    """After surgery the optimizer goes on with the state of the channels that are left, on shards."""
    ours, theirs = sharded(net()), sharded(net())
    with rebind.bind(evaluator_of(train, make), ours) as binding:
        binding.train(max_steps=6)
        ours = sharded(pruned(ours))
        binding.rebind(ours, state="slice", kept=KEPT_OF)
        binding.train(max_steps=4)
    optimizer, scheduler = make(theirs)
    train(theirs, optimizer, MSE, scheduler, 6)
    theirs, optimizer, scheduler = _sliced_by_hand(make, theirs, optimizer, scheduler, then=sharded)
    train(theirs, optimizer, MSE, scheduler, 4)
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)


@job
def sharded_with_patches(make):
    """A loss patch and tasks on shards."""
    ours, theirs = sharded(net()), sharded(net())

    def before(model):
        model.fc1.weight.grad.mul_(0.5)

    def after(model):
        with torch.no_grad():
            model.fc2.weight.clamp_(-0.2, 0.2)

    hooked = []

    def doubled(gradient):
        hooked.append(whole(gradient))
        return gradient * 2

    with rebind.bind(evaluator_of(train, make), ours) as binding:
        binding.gradient_hook("fc2.bias", doubled)
        outputs = binding.collect("fc1", keep=5)
        binding.patch_loss(lambda loss, output, _: loss + 0.1 * output.square().mean())
        binding.before_step(lambda: before(ours))
        binding.after_step(lambda: after(ours))
        binding.train(max_steps=5)

    def before_with_doubled_bias():
        before(theirs)
        theirs.fc2.bias.grad.mul_(2)

    optimizer, scheduler = make(theirs)
    material.loop(
        theirs,
        optimizer,
        lambda output, y: MSE(output, y) + 0.1 * output.square().mean(),
        scheduler,
        5,
        before=before_with_doubled_bias,
        after=lambda: after(theirs),
    )
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)
    assert len(hooked) == len(outputs.values()) == 5
    assert all(map(torch.equal, *_everywhere(hooked)))
    assert whole(ours.fc2.weight).abs().max() <= 0.2


@job
def sharded_and_resumed(make):
    """A state that was taken half way leads to the same bits again."""
    ours = sharded(net())
    with rebind.bind(evaluator_of(train, make), ours) as binding:
        binding.train(max_steps=3)
        state = binding.state_dict()
        binding.train(max_steps=3)
        expected = tensors(ours)
        binding.train(max_steps=1)
        binding.load_state_dict(state)
        assert binding.steps == 3
        binding.train(max_steps=3)
    assert_same(tensors(ours), expected)


@job
def sharded_inside_of_the_training_function(make):
    """The optimizers would train what the model no longer has; that is told, and not done in silence."""
    ours, theirs = net(), sharded(net())
    with rebind.bind(evaluator_of(material.train_and_shard, make), ours) as binding:
        with pytest.raises(rebind.TrainingError, match=r"replaced all 6 .* \(fully_shard"):
            binding.train(max_steps=3)
        assert binding.steps == 0
    # What sharding has put into the model is still there, and can be bound, as the message says.
    with rebind.bind(evaluator_of(train, make), ours) as binding:
        binding.train(max_steps=3)
    train(theirs, *_by_hand(make, theirs, 3))
    for name, parameter in theirs.named_parameters():
        assert torch.equal(whole(ours.get_parameter(name)), whole(parameter)), name


@job
def sharded_inside_with_the_optimizer_put_over(make):
    """A training function shards and puts the optimizer over: before and after a rebind, and carried on."""
    ours, theirs = net(), net()
    with rebind.bind(evaluator_of(material.train_on_shards, make), ours) as binding:
        binding.train(max_steps=4)
        binding.train(max_steps=2)
        optimizer, scheduler = make(theirs)
        for steps in (4, 2):
            material.train_on_shards(theirs, optimizer, MSE, scheduler, steps)
        assert isinstance(ours.fc1.weight, DTensor)
        assert_same(tensors(ours), tensors(theirs))
        assert_same_everywhere(ours)
        assert_processes_learned_from_each_other(make, ours)

        ours, theirs = pruned(ours), pruned(theirs)
        binding.rebind(ours)
        binding.train(max_steps=4)
        score = binding.evaluate().score
        optimizer, scheduler = make(theirs)
        material.train_on_shards(theirs, optimizer, MSE, scheduler, 4)
        assert_same(tensors(ours), tensors(theirs))
        assert_same_everywhere(ours)
        assert score == material.loss_of(theirs)

        ours = _sharded_copy(ours)
        binding.rebind(ours, state="carry")
        assert len(binding.report.carried) == 6
        binding.train(max_steps=3)
    material.train_on_shards(theirs, optimizer, MSE, scheduler, 3)
    assert_same(tensors(ours), tensors(theirs))
    assert_same_everywhere(ours)


def assert_processes_learned_from_each_other(make, model):
    """So that what is compared could differ: a process alone comes to other weights."""
    alone = net()
    train(alone, *_by_hand(make, alone, 6))
    assert not torch.equal(alone.fc1.weight, whole(model.fc1.weight))


def _everywhere(value):
    """What each of the two processes has."""
    values = [None, None]
    dist.all_gather_object(values, value)
    return values


def _by_hand(make, model, steps):
    optimizer, scheduler = make(model)
    return optimizer, MSE, scheduler, steps


def _sliced_by_hand(make, model, optimizer, scheduler, then=material.as_it_is):
    """Prune a model, and slice the state of its optimizer for a new one."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    state = {names[p]: {k: whole(v) for k, v in kept.items()} for p, kept in optimizer.state.items()}
    model = then(pruned(model))
    new, new_scheduler = make(model)
    for name, parameter in model.named_parameters():
        for key, value in state[name].items():
            if value.dim() > 0:
                value = sliced(name, value)
                if isinstance(parameter, DTensor):
                    from torch.distributed.tensor import distribute_tensor

                    value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
            new.state[parameter][key] = value.clone()
    for group, old in zip(new.param_groups, optimizer.param_groups, strict=True):
        group.update({key: value for key, value in old.items() if key != "params"})
    new_scheduler.load_state_dict(scheduler.state_dict())
    return model, new, new_scheduler


def _sharded_copy(model):
    copied = material.Net(len(model.fc1.weight))
    copied.load_state_dict({name: whole(value) for name, value in model.state_dict().items()})
    return sharded(copied)


def main(name, optimizer, rank, store):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "gloo",
        rank=int(rank),
        world_size=2,
        store=dist.FileStore(store, 2),
        timeout=timedelta(seconds=60),
    )
    JOBS[name](material.OPTIMIZERS[optimizer])
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.write("done\n")
    sys.stdout.flush()
    # A thread of gloo may let go of a tensor of Python's when the interpreter is ending, where torch aborts.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
