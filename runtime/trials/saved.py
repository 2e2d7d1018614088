"""Results saved as they arrive: a run that was cut short is taken up where it ended."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...evaluator_schema.errors import TrialError, UntrustedPayloadError
from ...serialization import SigningKey, pack, unpack
from .answers import describe
from .fingerprint import fingerprint
from .journal import Journal
from .results import TrialResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from .packing import Plan
    from .trial import Trial

_LENGTH = struct.Struct("!I")
_KIND = "saved result"
_PLAIN = (type(None), bool, int, float, str)
_FIELDS = ("name", "score", "seconds", "process_id", "attempts")


@dataclass(frozen=True)
class Saving:
    """Where a run's results are kept; see `run_trials`.

    Attributes:
        path: The file.
        key: Signs it.
        trusted: Open what is pickled in an unsigned file.
    """

    path: str | PathLike[str]
    key: SigningKey | None = None
    trusted: bool = False


class SavedResults:
    """The results of one run in a file, those that were there and those to come.

    Args:
        saving: Where.
        plan: The run. The file has to be of a run with the same evaluator and seed.

    Raises:
        TrialError: The file is of another run, or in use.
        SerializationError: The file is damaged, or not one of results.
    """

    def __init__(self, saving: Saving, plan: Plan) -> None:
        self._saving = saving
        self._plan = plan
        self._finished: dict[str, TrialResult] = {}
        self._journal = Journal(saving.path, saving.key)
        try:
            self._take_up()
        except BaseException:
            self._journal.close()
            raise

    @property
    def finished(self) -> Mapping[str, TrialResult]:
        """The results that were there, of trials of this run that ended without an error."""
        return self._finished

    def add(self, result: TrialResult) -> TrialResult:
        """Save a result.

        Returns:
            The same result; with an error where it could not be saved.
        """
        try:
            record = _encode(result, _identity(self._plan.trials[result.name]), self._saving.key)
        except Exception as error:  # noqa: BLE001 - pickling runs code of the user's
            fault = TrialError(
                f"trial {result.name!r} has a result that cannot be saved: {describe(error)[0]}. It will be "
                "run again when the file is used again"
            )
            fault.__cause__ = error
            return replace(result, error=fault)
        self._journal.append(record)
        return result

    def close(self) -> None:
        """Let the file go."""
        self._journal.close()

    def _take_up(self) -> None:
        own = {"evaluator": fingerprint(self._plan.evaluator.fields()), "seed": self._plan.seed}
        records = self._journal.read()
        head = next(records, None)
        if head is None:
            self._journal.append(json.dumps(own).encode())
            return
        found = json.loads(head)
        different = [name for name, value in own.items() if found.get(name) != value]
        if different:
            raise TrialError(
                f"{self._saving.path} holds results of a run with another {' and another '.join(different)}. "
                "Give that one again to go on, or the path of a new file"
            )
        for record in records:
            self._recall(record)

    def _recall(self, record: bytes) -> None:
        told, body = _split(record)
        name = told["name"]
        trial = self._plan.trials.get(name)
        if trial is None or told["failed"]:
            return
        if told["trial"] != _identity(trial):
            raise TrialError(
                f"{self._saving.path} holds a result of another trial {name!r}: there, {told['trial']}; "
                f"here, {_identity(trial)}. Give the new trial another name, or the path of a new file"
            )
        self._finished[name] = self._decode(told, body)

    def _decode(self, told: dict[str, Any], body: bytes) -> TrialResult:
        plain = TrialResult(**{name: told[name] for name in _FIELDS})
        if not body:
            return replace(plain, info=told["info"], value=told["value"])
        if self._saving.key is None and not self._saving.trusted:
            raise UntrustedPayloadError(
                f"{self._saving.path} holds pickled results (of trial {plain.name!r}, for one) and is not "
                "signed. If it is your own, give trusted=True; to have it signed, begin with key=..."
            )
        rest = unpack(body, kind=_KIND, key=self._saving.key, trusted=self._saving.key is None)
        return replace(plain, **rest)


def _identity(trial: Trial) -> dict[str, Any]:
    """What tells a trial from another one of the same name, as far as that is the same in every process."""
    task = getattr(trial.task, "__qualname__", type(trial.task).__qualname__)
    return {"task": task, "max_steps": trial.max_steps, "max_epochs": trial.max_epochs}


def _encode(result: TrialResult, trial: dict[str, Any], key: SigningKey | None) -> bytes:
    """A JSON header, and a pickled rest only where JSON would not give the same back."""
    told = {name: getattr(result, name) for name in _FIELDS}
    told |= {"trial": trial, "failed": result.error is not None, "info": {}, "value": None}
    body = b""
    if result.error is not None:
        told["error"] = f"{type(result.error).__name__}: {result.error}"
    elif result.state_dict is None and _is_plain(result.info) and _is_plain(result.value):
        told |= {"info": result.info, "value": result.value}
    else:
        rest = {"info": result.info, "value": result.value, "state_dict": result.state_dict}
        body = pack(rest, kind=_KIND, key=key)
    header = json.dumps(told).encode()
    return b"".join((_LENGTH.pack(len(header)), header, body))


def _split(record: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = _LENGTH.unpack_from(record)
    end = _LENGTH.size + length
    return json.loads(record[_LENGTH.size : end]), record[end:]


def _is_plain(value: Any) -> bool:
    """Whether JSON gives back the same value."""
    if type(value) in (dict, list):
        if type(value) is dict and not all(type(key) is str for key in value):
            return False
        return all(map(_is_plain, value.values() if type(value) is dict else value))
    return type(value) in _PLAIN
