"""How one trial is run, from bytes to bytes: the same function in every worker of every pool."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import import_module
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from ...evaluator_schema.errors import CorruptedError
from ...serialization import SigningKey, open_evaluator, unpack_file
from ...serialization.environment import check_versions, current_versions
from ..binding.binding import bind
from ..binding.evaluation import Evaluation
from ..pools.addresses import address
from .answers import Answer, Status, describe, packed_result
from .conditions import trial_conditions
from .leases import trial_devices, trial_devices_set
from .orders import Order
from .scoreboard import Marker
from .seeding import random_state_kept, seed_everything
from .trial_logging import trial_named

if TYPE_CHECKING:
    from ..pools.pool import BytesLike
    from .scoreboard import Scoreboard

# torch imports this when a first optimizer is made, which takes more than a second; a worker does it
# while it starts, so that no trial's time is charged for it.
_PRELOADED = ("torch._dynamo",)

# What is sealed was written by the run, from memory that did not change meanwhile. Others can write to
# what is on disk, and a copy came over a network.
_VERIFY: Final = "unless sealed"
_OPENING = 0  # seeds what is drawn while a trial is opened, before its own seed is known
MODEL = "model"  # a kind of packed values


class Outcome(NamedTuple):
    """What a task gave."""

    score: float | None
    info: dict[str, Any]
    value: Any


def make_context(
    key: SigningKey, threads: int, settings: Mapping[str, Any], board: Scoreboard | None = None
) -> bytes:
    """What an `Executor` is made from.

    The evaluator comes from this process, signed by it, so it may name whatever is imported here.
    """
    told = {
        "key": {"id": key.id, "secret": key.secret.hex()},
        "threads": threads,
        "settings": dict(settings),
        "board": None if board is None else board.path,
        "preload": [name for name in _PRELOADED if name in sys.modules],
        "allow": sorted({name.partition(".")[0] for name in sys.modules}),
        "process": os.getpid(),
        "versions": current_versions(),
        "implementation": sys.implementation.name,
    }
    return json.dumps(told).encode()


class Executor:
    """Runs the trials of one run in one process.

    It opens and verifies the evaluator's file once, and takes a fresh evaluator from it for each
    trial, so that nothing leaks from one into the next.
    """

    def __init__(self, context: bytes) -> None:
        told = json.loads(context)
        self._key = SigningKey(told["key"]["id"], bytes.fromhex(told["key"]["secret"]))
        self._threads: int = told["threads"]
        self._settings: dict[str, Any] = told["settings"]
        for name in told["preload"]:
            import_module(name)
        self._allow: list[str] = told["allow"]
        self._environment: tuple[dict[str, str], str] = (told["versions"], told["implementation"])
        # In the user's own process the generators of random numbers are the user's, and put back.
        self._keep_random_state = random_state_kept if told["process"] == os.getpid() else nullcontext
        self._opened: dict[str, Any] = {}
        self._board = None if told["board"] is None else Marker(told["board"])

    def __call__(self, payload: BytesLike, files: Mapping[str, str]) -> bytes:
        """Run one trial; an error becomes an answer."""
        began = time.perf_counter()
        with trial_conditions(self._threads, self._settings), self._keep_random_state():
            seed_everything(_OPENING)
            status, known = self._attempt(payload, files)
        seconds = time.perf_counter() - began
        return Answer(status, seconds, os.getpid(), **known).encode(self._key)

    def _attempt(self, payload: BytesLike, files: Mapping[str, str]) -> tuple[Status, dict[str, Any]]:
        try:
            order, evaluator, model = self._open(payload, files)
        except Exception as error:  # noqa: BLE001 - unpickling runs code of the user's
            return Status.UNOPENED, _failure(error)
        status, known = self._run(order, evaluator, model)
        return status, {"trial": order.name, **known}

    def _run(self, order: Order, evaluator: Any, model: Any) -> tuple[Status, dict[str, Any]]:
        try:
            with trial_devices_set(order.devices), trial_named(order.name):
                outcome, state = _do(order, evaluator, model, self._board)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a task may even call sys.exit
            return Status.RAISED, _failure(error)
        try:
            result = {"info": outcome.info, "value": outcome.value, "state_dict": state}
            packed = packed_result(result, self._key)
        except Exception as error:  # noqa: BLE001 - pickling runs code of the user's
            return Status.UNSENDABLE, {"score": outcome.score, **_failure(error)}
        return Status.DONE, {"score": outcome.score, **packed}

    def _open(self, payload: BytesLike, files: Mapping[str, str]) -> tuple[Order, Any, Any]:
        check_versions(*self._environment, of="The trial")
        order = Order.decode(payload, self._key)
        digest = order.evaluator
        if digest not in self._opened:
            path = _path(files, digest)
            self._opened[digest] = open_evaluator(path, self._key, allow=self._allow, verify_tensors=_VERIFY)
        evaluator = self._opened[digest].rehydrate()
        if order.model_file is None:
            return order, evaluator, order.model
        # A private map: the trial may write to its weights, and the file stays as it is.
        path = _path(files, order.model_file)
        return order, evaluator, unpack_file(path, kind=MODEL, key=self._key, verify_tensors=_VERIFY)


def _path(files: Mapping[str, str], digest: str) -> str:
    """Where a file is, which has to be the very one: a path may lead to another one by now."""
    path = files[digest]
    if address(path) != digest:
        raise CorruptedError(f"The file of the trial at {path} is not the one that was sent. Run it again.")
    return path


def _do(
    order: Order, evaluator: Any, model: Any, board: Marker | None
) -> tuple[Outcome, dict[str, Any] | None]:
    seed_everything(order.seed)
    if not isinstance(model, torch.nn.Module):
        model = model()
    if order.devices and isinstance(model, torch.nn.Module):
        model = model.to(trial_devices()[0])
    with bind(evaluator, model, rename=order.rename, missing=order.missing) as binding:
        if board is not None:
            binding.on_event(lambda event: board.mark(order.slot, event.step, event.max_steps))
        outcome = read_outcome(order.task(binding, **order.arguments))
        state = _state_of(binding.model) if order.state_dict else None
    return outcome, state


def read_outcome(returned: Any) -> Outcome:
    """Tell score, info and value apart in whatever a task returned."""
    if isinstance(returned, Evaluation):
        return Outcome(returned.score, dict(returned.info), None)
    if isinstance(returned, tuple) and len(returned) == 2:
        score = _number(returned[0])
        if score is not None and isinstance(returned[1], Mapping):
            return Outcome(score, dict(returned[1]), None)
    score = _number(returned)
    return Outcome(score, {}, returned if score is None else None)


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor):
        return float(value) if value.dim() == 0 and not value.is_complex() else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value)


def _state_of(model: torch.nn.Module) -> dict[str, Any]:
    """The weights, on the CPU: the process that gets them may not have the worker's device."""
    return {
        name: value.detach().cpu() if isinstance(value, torch.Tensor) else value
        for name, value in model.state_dict().items()
    }


def _failure(error: BaseException) -> dict[str, Any]:
    detail, trace = describe(error)
    classes = " ".join(cls.__name__ for cls in type(error).__mro__)
    return {"detail": detail, "trace": trace, "error": classes}
