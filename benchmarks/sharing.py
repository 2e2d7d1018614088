"""Trials that share an evaluator.

Trials on two workers that are started and warm. Each needs the whole evaluator, 100 MiB, and reads one number
of it. In every round the evaluator is a new one, so that nobody has it from before. *Ray, zero-copy* and
*concurrent.futures, shared memory* move the tensor only as each library does it best: Ray maps a bare array,
torch hands the tensor over in shared memory. All but rebind's pools only read the number; *Ray, zero-copy,
bound* does what a trial does: a fresh evaluator, a model of its own, an optimizer on it. *Pickled* is the
evaluator as bytes of cloudpickle with each trial, as Ray's *naive* way is with rebind's bytes in its store.
An empty trial does nothing: its time is that of many, divided by their number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any, NamedTuple

import cloudpickle
import torch
from harness.benchmark import Run
from harness.peers import installed
from harness.record import Comparison, Place, Promise
from harness.turns import Timed, compare, timed
from torch import nn

import rebind

WORKERS = 2
_EMPTY = "One empty trial"
_LOCAL, _PICKLED = "rebind LocalPool", "concurrent.futures, pickled"
_ZERO_COPY, _BOUND = "Ray, zero-copy", "Ray, zero-copy, bound"
_PATIENCE = 40  # seconds: those that send the evaluator with each trial
PEERS = ("distributed", "ray", "loky", "joblib")


def _at_most(theirs: str, limit: float, says: str) -> Promise:
    of, to = (Place(family=_shared(100, 100), contestant=name) for name in (_LOCAL, theirs))
    return Promise(says=says, of=of, to=to, limit=limit)


def _shared(count: int, mib: int) -> str:
    return f"{count} trials that share {mib} MiB"


PROMISES = (
    _at_most(_PICKLED, 1 / 50, "sharing 100 MiB takes at most 1/50 of concurrent.futures' time"),
    _at_most(_BOUND, 1, "sharing 100 MiB takes no longer than the same trials over Ray's zero-copy path"),
    _at_most(_ZERO_COPY, 1, "sharing 100 MiB takes no longer than reading alone over Ray's zero-copy path"),
)


class Way(NamedTuple):
    """One way to take an evaluator to trials.

    Attributes:
        share: Runs so many trials that need an evaluator.
        empty: Runs so many that do nothing; None where this way is only another way to share.
    """

    share: Callable[[Any, int], object]
    empty: Callable[[int], object] | None


class Tiny(nn.Module):
    """As small as a model can be."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(1, 1)


def train(model: nn.Module, optimizers: Any, criterion: Any) -> None:
    """Never runs here."""


def make_evaluator(mib: int) -> rebind.TorchEvaluator:
    """Give an evaluator whose dummy input has so many MiB."""
    model = Tiny()
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    dummy = torch.rand(max(1, mib << 18), 1)
    return rebind.TorchEvaluator(train, optimizer, nn.functional.mse_loss, dummy_input=dummy, model=model)


def look(binding: Any) -> float:
    """Touch the evaluator, and no more."""
    return float(binding.evaluator.dummy_input[-1, 0])


def nothing(binding: Any) -> float:
    """Do nothing."""
    return 0.0


def touch(evaluator: Any, number: int) -> float:
    """Touch it, for those that take the evaluator as an argument."""
    return float(evaluator.dummy_input[-1, 0])


def touch_bytes(data: bytes, number: int) -> float:
    """Touch it, for those that take bytes."""
    return touch(rebind.loads(data, trusted=True), number)


def touch_pickled(data: bytes, number: int) -> float:
    """Touch it, for those that take a pickle."""
    return touch(cloudpickle.loads(data), number)


def touch_array(array: Any, number: int) -> float:
    """Touch it, for those that take a bare array."""
    return float(torch.from_numpy(array)[-1, 0])


def touch_bound(array: Any, code: bytes, number: int) -> float:
    """Do what a trial does, with the tensor as a bare array and the rest of the evaluator as bytes."""
    with rebind.bind(rebind.loads(code, trusted=True), Tiny()):
        return touch_array(array, number)


def idle(number: int) -> int:
    """Do nothing, for the others."""
    return number


def warm_up(number: int) -> int:
    """Wait a little, so that each worker gets one."""
    time.sleep(0.2)
    return number


def comparisons(run: Run) -> Iterator[Comparison]:
    """Open all pools, and let them take turns."""
    mib, count, empty = run.pick((100, 100, 300), (1, 4, 4))
    with ExitStack() as stack:
        ways = dict(opened(stack))
        held: list[Any] = [None]

        def renew() -> None:
            held[0] = None
            held[0] = make_evaluator(mib)

        def sharing(way: Way) -> Timed:
            return timed(lambda: way.share(held[0], count), before=renew)

        def emptily(work: Callable[[int], object]) -> Timed:
            once = timed(lambda: work(empty))
            return lambda: once() / empty

        works = {name: sharing(way) for name, way in ways.items()}
        rounds = run.pick(5, 1)
        # The pools are warm, and a round of all is long.
        yield compare(_shared(count, mib), works, rounds, baseline=_PICKLED, warm_up=0, patience=_PATIENCE)
        held[0] = None
        works = {name.partition(",")[0]: emptily(way.empty) for name, way in ways.items() if way.empty}
        yield compare(_EMPTY, works, rounds, baseline=_PICKLED.partition(",")[0])


def opened(stack: ExitStack) -> Iterator[tuple[str, Way]]:
    """Open what is installed, warm."""
    yield _LOCAL, rebind_way(stack, rebind.LocalPool(WORKERS))
    if installed("distributed"):
        yield from dask_ways(stack)
    if installed("ray"):
        yield from ray_ways(stack)
    if installed("loky"):
        yield "loky", loky_way(stack)
    if installed("joblib"):
        yield "joblib", joblib_way(stack)
    yield from futures_ways(stack)


def rebind_way(stack: ExitStack, pool: rebind.Pool) -> Way:
    """Give `run_trials` on a pool, the writing of the evaluator included."""
    stack.enter_context(pool)
    small = make_evaluator(0)

    def trials(evaluator: Any, count: int, task: Callable[[Any], float]) -> None:
        wanted = [rebind.Trial(model=Tiny, task=task) for _ in range(count)]
        for result in rebind.run_trials(evaluator, wanted, pool, progress=False):
            if result.error:
                raise result.error

    trials(small, 4, look)
    return Way(
        lambda evaluator, count: trials(evaluator, count, look), lambda count: trials(small, count, nothing)
    )


def futures_ways(stack: ExitStack) -> Iterator[tuple[str, Way]]:
    """Give `concurrent.futures`, spawned: with tensors that torch shares, and with bytes that it cannot."""
    pool = stack.enter_context(ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")))
    list(pool.map(warm_up, range(4)))
    list(pool.map(touch, [make_evaluator(0)] * 4, range(4)))

    def pickled(evaluator: Any, count: int) -> list[float]:
        data = (cloudpickle.dumps(evaluator) for _ in range(count))
        return list(pool.map(touch_pickled, data, range(count)))

    def shared(evaluator: Any, count: int) -> list[float]:
        return list(pool.map(touch, [evaluator] * count, range(count)))

    yield "concurrent.futures, shared memory", Way(shared, None)
    yield _PICKLED, Way(pickled, lambda count: list(pool.map(idle, range(count))))


def loky_way(stack: ExitStack) -> Way:
    """Give loky's executor."""
    from loky import ProcessPoolExecutor as LokyExecutor

    pool = stack.enter_context(LokyExecutor(WORKERS))
    list(pool.map(warm_up, range(4)))
    list(pool.map(touch, [make_evaluator(0)] * 4, range(4)))
    return Way(
        lambda evaluator, count: list(pool.map(touch, [evaluator] * count, range(count))),
        lambda count: list(pool.map(idle, range(count))),
    )


def joblib_way(stack: ExitStack) -> Way:
    """Give `joblib.Parallel` with its default backend."""
    from joblib import Parallel, delayed

    parallel = stack.enter_context(Parallel(n_jobs=WORKERS))
    parallel(delayed(warm_up)(n) for n in range(4))
    small = make_evaluator(0)
    parallel(delayed(touch)(small, n) for n in range(4))
    return Way(
        lambda evaluator, count: parallel(delayed(touch)(evaluator, n) for n in range(count)),
        lambda count: parallel(delayed(idle)(n) for n in range(count)),
    )


def dask_ways(stack: ExitStack) -> Iterator[tuple[str, Way]]:
    """Give Dask with the evaluator scattered once; and rebind over the same cluster."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    )
    client = stack.enter_context(Client(stack.enter_context(cluster)))
    client.gather(client.map(warm_up, range(4), pure=False))

    def scattered(evaluator: Any, count: int) -> None:
        (held,) = client.scatter([evaluator], broadcast=True, hash=False)
        client.gather([client.submit(touch, held, n, pure=False) for n in range(count)])

    scattered(make_evaluator(0), 4)
    yield (
        "Dask, scattered",
        Way(scattered, lambda count: client.gather(client.map(idle, range(count), pure=False))),
    )
    yield "rebind DaskPool", rebind_way(stack, rebind.DaskPool(client))


def ray_ways(stack: ExitStack) -> Iterator[tuple[str, Way]]:
    """Give Ray with bytes in its store, and with a bare array in it; and rebind over the same cluster."""
    import ray

    # As many for the actors of rebind's pool as for Ray's own tasks; only one of them works at a time.
    ray.init(num_cpus=2 * WORKERS, include_dashboard=False, log_to_driver=False, configure_logging=False)
    stack.callback(ray.shutdown)
    yield "rebind RayPool", rebind_way(stack, rebind.RayPool(WORKERS))
    by_bytes, by_array, bound_task = (ray.remote(task) for task in (touch_bytes, touch_array, touch_bound))
    do_nothing = ray.remote(idle)

    def shared(task: Any, content: Callable[[Any], object]) -> Callable[[Any, int], object]:
        def share(evaluator: Any, count: int) -> list[float]:
            held = ray.put(content(evaluator))
            return list(ray.get([task.remote(held, n) for n in range(count)]))

        return share

    def bound(evaluator: Any, count: int) -> list[float]:
        held, code = ray.put(evaluator.dummy_input.numpy()), ray.put(rebind.dumps(make_evaluator(0)))
        return list(ray.get([bound_task.remote(held, code, n) for n in range(count)]))

    naive = shared(by_bytes, rebind.dumps)
    zero_copy = shared(by_array, lambda evaluator: evaluator.dummy_input.numpy())
    ray.get([ray.remote(warm_up).remote(n) for n in range(4)])
    for way in (naive, bound, zero_copy):
        way(make_evaluator(0), 8)

    def empty(count: int) -> Iterable[int]:
        return list(ray.get([do_nothing.remote(n) for n in range(count)]))

    yield "Ray, naive", Way(naive, None)
    yield _BOUND, Way(bound, None)
    yield _ZERO_COPY, Way(zero_copy, empty)
