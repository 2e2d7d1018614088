"""The whole table: every optimizer, parameter style and scheduler form, over every transport.

`python tests/exactness/exact_table.py` compares all of them and writes `docs/reinitialisation.md`.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import pickle
import platform
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import exact_run
import torch
from exact_optimizers import OPTIMIZERS
from exact_run import TRANSPORTS, Combination, Task, Verdict, combinations, examine, failure, judge
from exact_schedulers import FORMS
from exact_styles import STYLES

HERE = Path(__file__).parent
# As many combinations share one process on the other side.
BATCH = 1000


def sample(size: int, seed: int) -> list[Combination]:
    """Draw combinations so that every optimizer, style and form is among them."""
    dice = random.Random(seed)
    optimizers, styles, forms = list(OPTIMIZERS), list(STYLES), list(FORMS)
    for names in (optimizers, styles, forms):
        dice.shuffle(names)
    return [
        Combination(optimizers[i % len(optimizers)], styles[i % len(styles)], forms[i % len(forms)])
        for i in range(size)
    ]


def compare(chosen: Sequence[Combination], *, every_transport: bool = False) -> list[Verdict]:
    """Compare combinations with direct construction: here, through bytes, or in one other process."""
    verdicts: list[Verdict] = []
    sent: list[tuple[Task, exact_run.Curve]] = []
    for combination in chosen:
        found, task, direct = examine(combination, TRANSPORTS if every_transport else [combination.transport])
        verdicts += found
        if task is not None:
            sent.append((task, direct))
    return verdicts + elsewhere(sent)


def elsewhere(sent: Sequence[tuple[Task, exact_run.Curve]]) -> list[Verdict]:
    """Have a new process load evaluators, bind them and train, and compare what it did."""
    answer = subprocess.run(
        [sys.executable, str(HERE / "exact_run.py")],
        input=exact_run.pickled([task for task, _ in sent]),
        stdout=subprocess.PIPE,
        check=True,
    )
    verdicts = []
    for (task, direct), curve in zip(sent, pickle.loads(answer.stdout), strict=True):
        if isinstance(curve, str):
            verdicts.append(failure(task.combination, TRANSPORTS[2], RuntimeError(curve)))
        else:
            verdicts.append(judge(task.combination, TRANSPORTS[2], direct, curve))
    return verdicts


def whole_table(workers: int) -> list[Verdict]:
    """Compare all combinations."""
    everything = list(combinations())
    batches = [everything[start : start + BATCH] for start in range(0, len(everything), BATCH)]
    verdicts: list[Verdict] = []
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
        for number, found in enumerate(pool.map(compare, batches), start=1):
            verdicts += found
            sys.stderr.write(f"\r{number} of {len(batches)} batches")
    return verdicts


def report(verdicts: Iterable[Verdict]) -> str:
    """Write the table for people."""
    verdicts = list(verdicts)
    legal = [verdict for verdict in verdicts if verdict.outcome != "illegal"]
    counts = Counter(verdict.outcome for verdict in legal)
    lines = [
        *_INTRODUCTION.format(
            versions=f"torch {torch.__version__}, Python {platform.python_version()}",
            optimizers=len(OPTIMIZERS),
            styles=len(STYLES),
            forms=len(FORMS),
            combinations=len({verdict.combination for verdict in verdicts}),
            constructible=len({verdict.combination for verdict in legal}),
            illegal=sum(verdict.outcome == "illegal" for verdict in verdicts),
            legal=len(legal),
            raising=sum(not verdict.trained for verdict in legal),
            **{name: counts[name] for name in ("equal", "different", "refused")},
        ).splitlines(),
        *_counted("transport", legal, lambda verdict: verdict.transport, TRANSPORTS),
        *_counted("optimizer", verdicts, lambda verdict: verdict.combination.optimizer, OPTIMIZERS),
        *_counted("parameters", verdicts, lambda verdict: verdict.combination.style, STYLES),
        *_counted("schedulers", verdicts, lambda verdict: verdict.combination.form, FORMS),
    ]
    for outcome, title in _TITLES.items():
        lines += _listed(outcome, title, verdicts)
    return "\n".join(lines).rstrip() + "\n"


def _counted(title, verdicts, key, names) -> list[str]:
    rows = [
        f"## By {title}",
        "",
        f"| {title} | equal | different | refused | torch refuses |",
        "|---|---|---|---|---|",
    ]
    counts: dict[str, Counter] = {name: Counter() for name in names}
    for verdict in verdicts:
        counts[key(verdict)][verdict.outcome] += 1
    columns = ("equal", "different", "refused", "illegal")
    rows += [f"| {name} | {' | '.join(str(counts[name][column]) for column in columns)} |" for name in names]
    return [*rows, ""]


def _listed(outcome: str, title: str, verdicts: Sequence[Verdict]) -> list[str]:
    found: dict[str, list[Combination]] = {}
    for verdict in verdicts:
        if verdict.outcome == outcome:
            found.setdefault(_reason(verdict.message), []).append(verdict.combination)
    if not found:
        return [f"## {title}", "", "None.", ""]
    rows = [
        f"## {title}",
        "",
        "| times | why | optimizers | parameters | schedulers |",
        "|---|---|---|---|---|",
    ]
    for reason, where in sorted(found.items(), key=lambda item: -len(item[1])):
        parts = (sorted({getattr(c, name) for c in where}) for name in ("optimizer", "style", "form"))
        told = (part[0] if len(part) == 1 else f"{len(part)} of them" for part in parts)
        rows.append(f"| {len(where)} | {reason} | {' | '.join(told)} |")
    return [*rows, ""]


def _reason(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if "validation error" not in line]
    told = " ".join(lines).partition(" [type=")[0].replace("|", "/")
    return told if len(told) <= 220 else f"{told[:220]} ..."


_LIST_HEAD = ("| times | why | optimizers | parameters | schedulers |", "|---|---|---|---|---|")
_TITLES = {
    "different": "What differs",
    "refused": "What rebind refuses, with a clear error",
    "illegal": "What torch refuses",
}
_INTRODUCTION = """\
# Reinitialisation is exact

Written by `make table`, with {versions}. Do not edit.

A reinitialised optimizer or scheduler is what the user's own code would have built on the new model. The
table runs that code twice: recorded, on one model; and directly, on a new model with other initial weights
and, in every second combination, other widths. The evaluator of the recorded objects is bound to a copy of
the new model, and both are trained for 12 steps. They are **equal** if everything is, to the last bit: before
the first step and after the last one, all attributes of optimizers and schedulers (the groups with their
options, order and names; defaults; state; what is shared between groups); after each step the options of
every group; and in the end all weights. Where a step raises, it must raise the same on both sides.

{optimizers} optimizers x {styles} ways to pass parameters x {forms} forms of schedulers are {combinations}
combinations. Whether one is legal is decided by torch alone, when the direct construction is run: it refuses
{illegal}, and {constructible} remain. Each takes one of three transports, by a digest of its names, so that
every pair of optimizer, parameters and schedulers meets all three. That gives **{legal} comparisons:
{equal} equal, {different} different, {refused} refused by rebind.** In {raising} of them a step raises, on
both sides alike.

The optimizers are all of torch, with tensor learning rates and betas, a subclass, one of another maker, and a
class under `@trace`. A set of parameters, which torch takes as a whole, is left out: its order differs from
run to run, so that there is nothing to compare with.

The command is `python tests/exactness/exact_table.py`; with `--sample 300 --seed 1` it compares that many,
over all three transports, and prints the result.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="compare only this many combinations, and print the table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    if given.sample:
        sys.stdout.write(report(compare(sample(given.sample, given.seed), every_transport=True)))
        return
    text = report(whole_table(given.workers))
    (HERE.parent.parent / "docs" / "reinitialisation.md").write_text(text, encoding="utf-8")
    sys.stderr.write("\n")


if __name__ == "__main__":
    # Under its own name, so that its worker processes find what it sends.
    import exact_table

    exact_table.main()
