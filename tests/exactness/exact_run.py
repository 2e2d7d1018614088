"""One combination of the table: directly constructed, and reinitialised from an evaluator."""

import contextlib
import io
import itertools
import pickle
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from exact_models import make_model
from exact_optimizers import OPTIMIZERS
from exact_schedulers import FORMS
from exact_styles import STYLES

import rebind
from rebind.testing.curves import Curve, curve_of, explain_curves

STEPS = 12
TRANSPORTS = ("same process", "dumps and loads", "another process")


class Combination(NamedTuple):
    optimizer: str
    style: str
    form: str

    @property
    def shape(self) -> str:
        """The model that this combination is bound to."""
        return ("other weights", "other widths")[self._number % 2]

    @property
    def transport(self) -> str:
        """The transport that this combination takes in the whole table."""
        return TRANSPORTS[self._number % 3]

    @property
    def _number(self) -> int:
        return zlib.crc32("|".join(self).encode())


class Verdict(NamedTuple):
    """What came of one combination over one transport.

    `outcome` is "equal", "different", "refused" (rebind says that it cannot) or "illegal" (torch does);
    `trained` tells whether all steps could be made, directly.
    """

    combination: Combination
    transport: str
    outcome: str
    trained: bool = True
    message: str = ""


class Task(NamedTuple):
    """What is sent to another process: an evaluator, and the model to put it onto."""

    combination: Combination
    data: bytes


def combinations() -> Iterator[Combination]:
    return itertools.starmap(Combination, itertools.product(OPTIMIZERS, STYLES, FORMS))


def untraced(target):
    return target


def training(model, optimizers, criterion, lr_schedulers=None):
    raise NotImplementedError


def user_code(combination: Combination, model, t) -> tuple[list[Any], list[Any]]:
    """Do what the user wrote, for this model."""
    choice = OPTIMIZERS[combination.optimizer]
    going = STYLES[combination.style].style(t, choice.cls, model, choice.options())
    yielded = next(going)
    optimizers = yielded if isinstance(yielded, list) else [yielded]
    form = FORMS[combination.form]
    schedulers = [scheduler for optimizer in optimizers for scheduler in form(t, optimizer, model)]
    for _ in going:
        raise AssertionError("a style yields once")
    return optimizers, schedulers


def model_for(combination: Combination, shape: str):
    return make_model(shape, OPTIMIZERS[combination.optimizer].matrices_only)


def direct_curve(combination: Combination) -> Curve | Exception:
    """Train what the user's code builds on the new model, or give the error with which torch refuses it."""
    model = model_for(combination, combination.shape)
    with quiet():
        try:
            optimizers, schedulers = user_code(combination, model, untraced)
        except Exception as error:
            return error
        return curve_of(model, optimizers, schedulers, STEPS)


def create(combination: Combination) -> rebind.TorchEvaluator:
    """Record the user's code on one model."""
    model = model_for(combination, "recorded")
    with quiet():
        optimizers, schedulers = user_code(combination, model, rebind.trace)
        return rebind.TorchEvaluator(
            training,
            optimizers[0] if len(optimizers) == 1 else optimizers,
            torch.nn.functional.mse_loss,
            None if not schedulers else schedulers[0] if len(schedulers) == 1 else schedulers,
            model=model if STYLES[combination.style].pass_model else None,
        )


def rebound_curve(combination: Combination, evaluator: rebind.TorchEvaluator) -> Curve:
    """Train what an evaluator builds on the new model."""
    model = model_for(combination, combination.shape)
    with quiet(), rebind.bind(evaluator, model) as binding:
        return curve_of(model, binding.optimizers, binding.lr_schedulers, STEPS)


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def judge(combination: Combination, transport: str, direct: Curve, rebound: Curve) -> Verdict:
    difference = explain_curves(direct, rebound)
    return Verdict(combination, transport, "different" if difference else "equal", direct.trained, difference)


def failure(combination: Combination, transport: str, error: Exception) -> Verdict:
    kinds = {line["type"] for line in getattr(error, "errors", list)()}
    refused = isinstance(error, rebind.RebindError) or bool(kinds & {"not_adoptable", "unrecorded_change"})
    outcome = "refused" if refused else "different"
    return Verdict(combination, transport, outcome, True, f"{type(error).__name__}: {error}")


def examine(
    combination: Combination, transports: Sequence[str] = TRANSPORTS
) -> tuple[list[Verdict], Task | None, Curve | None]:
    """Compare one combination in this process, as asked; give what another process needs to do so."""
    direct = direct_curve(combination)
    if isinstance(direct, Exception):
        return [Verdict(combination, "", "illegal", message=f"{type(direct).__name__}: {direct}")], None, None
    verdicts: list[Verdict] = []
    task = None
    for transport in transports:
        try:
            evaluator = create(combination)
            if transport != TRANSPORTS[0]:
                task = Task(combination, rebind.dumps(evaluator))
            if transport == TRANSPORTS[1]:
                evaluator = rebind.loads(task.data, trusted=True)
            if transport != TRANSPORTS[2]:
                verdicts.append(judge(combination, transport, direct, rebound_curve(combination, evaluator)))
        except Exception as error:
            verdicts.append(failure(combination, transport, error))
            task = None
    return verdicts, task if TRANSPORTS[2] in transports else None, direct


def work(tasks: bytes) -> bytes:
    """Do in another process what `examine` does in this one: load, bind, train."""
    curves: list[Curve | str] = []
    for task in pickle.loads(tasks):
        try:
            curves.append(rebound_curve(task.combination, rebind.loads(task.data, trusted=True)))
        except Exception as error:
            curves.append(f"{type(error).__name__}: {error}")
    return pickle.dumps(curves)


def pickled(tasks: list[Task]) -> bytes:
    return pickle.dumps(tasks, protocol=5)


def stdin_to_stdout() -> None:
    """Serve one batch of tasks: `python exact_run.py < tasks > curves`."""
    import sys

    held = io.BytesIO(sys.stdin.buffer.read())
    sys.stdout.buffer.write(work(held.getvalue()))


if __name__ == "__main__":
    # Under its own name, so that what is pickled here is found there.
    import exact_run

    torch.set_num_threads(1)
    exact_run.stdin_to_stdout()
