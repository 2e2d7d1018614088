"""What each of two processes does on gloo: `python distributed_jobs.py JOB RANK STORE EVALUATOR`."""

from __future__ import annotations

import copy
import os
import sys
import warnings

import torch
import torch.distributed as dist
from binding_material import RECORDED, by_hand, net, record, run
from torch import nn

import rebind


def data_parallel(model):
    return nn.parallel.DistributedDataParallel(model), "module."


def compiled_data_parallel(model):
    return torch.compile(nn.parallel.DistributedDataParallel(model), backend="eager"), "_orig_mod.module."


def data_parallel_compiled(model):
    return nn.parallel.DistributedDataParallel(torch.compile(model, backend="eager")), "module._orig_mod."


def sharded(model):
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh("cpu", (2,))
    for layer in (model.fc1, model.fc2, model):
        fully_shard(layer, mesh=mesh)
    return model, ""


def sharded_by_the_first_fsdp(model):
    from torch.distributed.fsdp import FullyShardedDataParallel

    wrapped = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    return wrapped, "_fsdp_wrapped_module."


JOBS = {
    job.__name__: job
    for job in (
        data_parallel,
        compiled_data_parallel,
        data_parallel_compiled,
        sharded,
        sharded_by_the_first_fsdp,
    )
}


def whole(model):
    """A model's parameters, gathered from all processes."""
    return {
        name: p.full_tensor() if hasattr(p, "full_tensor") else p.detach().clone()
        for name, p in model.named_parameters()
    }


def compare_with_hand_made(transform, evaluator, original=None):
    """The evaluator on a transformed model against an optimizer that was built there by hand."""
    model, prefix = transform(original if original is not None else net())
    oracle, _ = transform(net())
    optimizer, scheduler = by_hand(oracle, {name: (prefix + name,) for name in RECORDED})
    with rebind.bind(evaluator, model) as binding:
        assert binding.report.matched == tuple(prefix + name for name in RECORDED)
        binding.train(max_steps=10)
        assert binding.optimizers[0].state
    run(oracle, [optimizer], [scheduler], nn.functional.mse_loss, 10)
    ours, theirs = whole(model), whole(oracle)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def carry_into(transform):
    """A run that is wrapped half way equals one that was wrapped from the start."""
    plain = net()
    binding = rebind.bind(record(plain), plain)
    binding.train(max_steps=5)
    wrapped, _ = transform(copy.deepcopy(plain))
    binding.rebind(wrapped, state="carry")
    assert len(binding.report.carried) == len(RECORDED)
    binding.train(max_steps=5)
    oracle = net()
    straight = rebind.bind(record(oracle), oracle)
    straight.train(max_steps=5)
    straight.train(max_steps=5)
    for (name, ours), theirs in zip(whole(wrapped).items(), whole(oracle).values(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6), name


def main(job, rank, store, evaluator):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", rank=int(rank), world_size=2, store=dist.FileStore(store, 2))
    transform = JOBS[job]
    compare_with_hand_made(transform, rebind.load(evaluator, trusted=True))
    original = net()
    compare_with_hand_made(transform, record(original), original)
    if not job.endswith("first_fsdp"):
        carry_into(transform)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.write("equal\n")
    sys.stdout.flush()
    # A thread of gloo may let go of a tensor of Python's when the interpreter is ending, where torch aborts.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
