"""What it costs to take one large evaluator to many trials: rebind and other ways, in one run.

    python benchmarks/trials.py [MIB [TRIALS]]

Two workers, started and warm; each trial needs the whole evaluator and does no work with it. Then an
empty trial, and the start of a pool against `concurrent.futures` with spawn.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import nn

import rebind

WORKERS = 2


class Tiny(nn.Module):
    """As small as a model can be."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(1, 1)


def train(model: nn.Module, optimizers: Any, criterion: Any) -> None:
    """Never runs here."""


def make_evaluator(mib: int) -> rebind.TorchEvaluator:
    """An evaluator whose dummy input has so many MiB."""
    model = Tiny()
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    dummy = torch.rand(max(1, mib << 18), 1)
    return rebind.TorchEvaluator(train, optimizer, nn.functional.mse_loss, dummy_input=dummy, model=model)


def look(binding: Any) -> float:
    """Touch the evaluator, and no more."""
    return float(binding.evaluator.dummy_input[-1, 0])


def touch(evaluator: Any, number: int) -> float:
    """The same for those that take the evaluator as an argument."""
    return float(evaluator.dummy_input[-1, 0]) + 0 * number


def touch_bytes(data: bytes, number: int) -> float:
    """The same for those that take bytes."""
    return touch(rebind.loads(data, trusted=True), number)


def touch_pickled(data: bytes, number: int) -> float:
    """The same for those that take a pickle."""
    return touch(cloudpickle.loads(data), number)


def touch_array(array: Any, number: int) -> float:
    """The same for a bare array, which Ray maps without a copy."""
    return float(torch.from_numpy(array)[-1, 0]) + 0 * number


def warm_up(number: int) -> int:
    """Import what the trials need."""
    time.sleep(0.05)
    return number


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rebind_trials(evaluator: Any, count: int, pool: rebind.Pool) -> float:
    """Seconds of `run_trials` on a warm pool, the writing of the evaluator included."""
    with pool:
        small = make_evaluator(0)
        trials = [rebind.Trial(model=Tiny, task=look) for _ in range(count)]
        rebind.run_trials(small, trials[:4], pool, progress=False).wait()

        def run() -> None:
            results = rebind.run_trials(evaluator, trials, pool, progress=False).wait()
            assert not results.failed, results.failed[0].error

        return timed(run)


def with_futures(evaluator: Any, count: int) -> float:
    """`concurrent.futures`, spawn; torch hands the tensors over in shared memory."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        list(pool.map(warm_up, range(4)))
        return timed(lambda: list(pool.map(touch, [evaluator] * count, range(count))))


def with_futures_bytes(evaluator: Any, count: int) -> float:
    """The same with the bytes of cloudpickle, which torch cannot take through shared memory."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        list(pool.map(warm_up, range(4)))
        data = (cloudpickle.dumps(evaluator) for _ in range(count))
        return timed(lambda: list(pool.map(touch_pickled, data, range(count))))


def with_loky(evaluator: Any, count: int) -> float:
    """Loky's reusable executor."""
    from loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=WORKERS)
    list(pool.map(warm_up, range(4)))
    seconds = timed(lambda: list(pool.map(touch, [evaluator] * count, range(count))))
    pool.shutdown(kill_workers=True)
    return seconds


def with_joblib(evaluator: Any, count: int) -> float:
    """`joblib.Parallel` with its default backend."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=WORKERS) as parallel:
        parallel(delayed(warm_up)(n) for n in range(4))
        return timed(lambda: parallel(delayed(touch)(evaluator, n) for n in range(count)))


def with_dask(evaluator: Any, count: int) -> dict[str, float]:
    """Dask: the evaluator scattered once; and rebind over the same cluster."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(warm_up, range(4), pure=False))

        def run() -> None:
            (held,) = client.scatter([evaluator], broadcast=True, hash=False)
            client.gather([client.submit(touch, held, n, pure=False) for n in range(count)])

        return {
            "Dask scatter": timed(run),
            "rebind DaskPool": rebind_trials(evaluator, count, rebind.DaskPool(client)),
        }


def with_ray(evaluator: Any, count: int) -> dict[str, float]:
    """Ray: bytes in the object store, a bare array in it; and rebind over the same cluster."""
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, configure_logging=False)
    bytes_task, array_task = ray.remote(touch_bytes), ray.remote(touch_array)
    array = evaluator.dummy_input.numpy()
    warm = np.zeros((1, 1), np.float32)
    small = ray.put(rebind.dumps(make_evaluator(0)))
    ray.get([array_task.remote(ray.put(warm), n) for n in range(4)])
    ray.get([bytes_task.remote(small, n) for n in range(4)])

    def naive() -> None:
        held = ray.put(rebind.dumps(evaluator))
        ray.get([bytes_task.remote(held, n) for n in range(count)])

    def zero_copy() -> None:
        held = ray.put(array)
        ray.get([array_task.remote(held, n) for n in range(count)])

    found = {"Ray put, naive": timed(naive), "Ray put, zero-copy array": timed(zero_copy)}
    ray.shutdown()
    return found


def empty_trial() -> float:
    """Milliseconds per trial that does nothing, on one warm worker; the best of three runs."""
    evaluator = make_evaluator(0)
    trials = [rebind.Trial(model=Tiny, task=look) for _ in range(300)]

    def work() -> None:
        failed = [
            each.error for each in rebind.run_trials(evaluator, trials, pool, progress=False) if each.error
        ]
        if failed:
            raise failed[0]

    with rebind.LocalPool(workers=1) as pool:
        work()
        runs = [timed(work) for _ in range(3)]
    return min(runs) / len(trials) * 1e3


START = {
    "concurrent.futures": (
        "import time, sys, os; from concurrent.futures import ProcessPoolExecutor as P; "
        "from multiprocessing import get_context as g; import torch, start_job\n"
        "if __name__ == '__main__':\n"
        "    t = time.perf_counter(); p = P(2, mp_context=g('spawn')); "
        "list(p.map(start_job.job, range(2))); print(time.perf_counter() - t); p.shutdown()\n"
    ),
    "rebind": (
        "import time; import torch; from rebind.runtime.pools import *\n"
        "p = LocalPool(2); t = time.perf_counter(); p.start(Briefing('start_job:make'), 2)\n"
        "for n in range(2): p.submit(Job(n, b''))\n"
        "p.next_outcome(); p.next_outcome(); print(time.perf_counter() - t); p.close()\n"
    ),
}
START_JOB = """
import torch
def job(n):
    return float(torch.ones(1))
def make(context):
    return lambda payload, files: str(job(0)).encode()
"""


def pool_starts(folder: str, repeats: int = 5) -> dict[str, float]:
    """Seconds until two fresh workers have each done a job with torch; medians, taken in turns."""
    Path(folder, "start_job.py").write_text(START_JOB)
    seconds: dict[str, list[float]] = {name: [] for name in START}
    for _ in range(repeats):
        for name, script in START.items():
            path = Path(folder, f"{name.replace('.', '_')}_start.py")
            path.write_text(script)
            done = subprocess.run(  # noqa: S603 - our own script
                [sys.executable, str(path)], capture_output=True, text=True, check=True
            )
            seconds[name].append(float(done.stdout))
    return {name: statistics.median(found) for name, found in seconds.items()}


def measurements(evaluator: Any, count: int) -> Iterator[tuple[str, float]]:
    """Every way in turn, those that are installed."""
    yield "rebind LocalPool", rebind_trials(evaluator, count, rebind.LocalPool(WORKERS))
    if find_spec("distributed"):
        yield from with_dask(evaluator, count).items()
    if find_spec("ray"):
        yield from with_ray(evaluator, count).items()
    if find_spec("loky"):
        yield "loky", with_loky(evaluator, count)
    if find_spec("joblib"):
        yield "joblib", with_joblib(evaluator, count)
    yield "concurrent.futures", with_futures(evaluator, count)
    yield "concurrent.futures, cloudpickle", with_futures_bytes(evaluator, count)


def main(mib: int = 100, count: int = 100) -> None:
    """Measure everything and print each figure as it comes, with its ratio to the first."""
    print(f"{count} trials of an evaluator with {mib} MiB on {WORKERS} workers", flush=True)
    own = None
    for name, seconds in measurements(make_evaluator(mib), count):
        own = own or seconds
        print(f"  {name:31} {seconds:8.3f} s   {seconds / own:7.1f} x", flush=True)
    print(f"empty trial: {empty_trial():.2f} ms", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        starts = pool_starts(folder)
    ratio = starts["rebind"] / starts["concurrent.futures"]
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in starts.items())
    print(f"start of two workers with torch: {told}; ratio {ratio:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
