"""More and more trials.

Empty trials on one worker that is warm: all of `run_trials`, and as many empty tasks of `concurrent.futures`.
Memory is the most anonymous memory that the parent had while the trials ran, with all of their results kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from harness.benchmark import Run
from harness.memory import own_memory
from harness.record import Comparison, Place, Promise
from harness.turns import compare, timed
from sharing import Tiny, idle, make_evaluator, nothing, warm_up

import rebind

_TIME, _MEMORY, _EACH = "Time of empty trials", "Memory of the parent", "Time per trial"
PEERS = ()


def _memory(setting: str) -> Place:
    return Place(family=_MEMORY, setting=setting, contestant="rebind")


PROMISES = (
    Promise(
        says="an empty trial takes at most 2 ms, 1,000 of them on one worker",
        of=Place(family=_EACH, setting="1,000", contestant="rebind"),
        limit=2e-3,
    ),
    Promise(
        says="growth is linear: 100 times as many trials (100 to 10,000) take at most 120 times as long",
        of=Place(family=_TIME, setting="10,000", contestant="rebind"),
        to=Place(family=_TIME, setting="100", contestant="rebind"),
        limit=120,
    ),
    Promise(
        says="memory is flat: the parent of 10,000 trials has at most 1.1 times the memory of that of 100",
        of=_memory("10,000"),
        to=_memory("100"),
        limit=1.1,
    ),
)


def comparisons(run: Run) -> Iterator[Comparison]:
    """Compare the numbers of trials, smallest first: memory that was once needed is seldom given back."""
    evaluator = make_evaluator(0)
    futures = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with rebind.LocalPool(workers=1) as pool, futures:
        list(futures.map(warm_up, range(1)))

        def trials(count: int) -> tuple[int, rebind.Results]:
            wanted = (rebind.Trial(model=Tiny, task=nothing) for _ in range(count))
            results = rebind.run_trials(evaluator, wanted, pool, progress=False)
            peak, often = own_memory(), max(1, count // 100)
            for number, result in enumerate(results):
                if result.error:
                    raise result.error
                if number % often == 0:
                    peak = max(peak, own_memory())
            return max(peak, own_memory()), results

        trials(4)
        for count in run.pick((1, 10, 100, 1_000, 10_000), (1, 10)):
            peaks: list[float] = []
            works = {
                "rebind": timed(lambda count=count, peaks=peaks: peaks.append(trials(count)[0])),
                "concurrent.futures": timed(tasks(futures, count)),
            }
            rounds = run.pick(9 if count < 1_000 else 2, 2)
            setting = f"{count:,}"
            found = compare(
                _TIME, works, rounds, baseline="concurrent.futures", setting=setting, size=count, warm_up=0
            )
            yield found
            each = {name: tuple(one / count for one in samples) for name, samples in found.samples.items()}
            yield found.model_copy(update={"family": _EACH, "samples": each})
            yield Comparison(
                family=_MEMORY,
                setting=setting,
                size=count,
                baseline="rebind",
                unit="bytes",
                samples={"rebind": tuple(peaks)},
            )


def tasks(pool: ProcessPoolExecutor, count: int) -> Callable[[], object]:
    """Give as many empty tasks of `concurrent.futures`."""
    return lambda: list(pool.map(idle, range(count)))
