"""How trials become jobs: the evaluator and shared models in files, the rest in the payload."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ...serialization import SigningKey
from ...serialization.content import draft_evaluator
from ...serialization.packing import draft_value
from ..pools import Job
from .execute import MODEL
from .orders import Order
from .seeding import trial_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...serialization.writing import Draft
    from .shelf import Shelf, Volume
    from .trial import Trial


@dataclass(frozen=True)
class Plan:
    """What a run was asked for; see `run_trials`."""

    evaluator: Any
    trials: Mapping[str, Trial]
    seed: int
    timeout: float | None
    state_dicts: bool

    def without(self, names: Iterable[str]) -> Plan:
        """The same plan, less these trials."""
        finished = set(names)
        return replace(self, trials={n: trial for n, trial in self.trials.items() if n not in finished})


class Packer:
    """Makes the jobs of one run.

    The evaluator is written once. So is a module that several trials use, which is removed again
    after the last of them.

    Raises:
        SerializationError: The evaluator cannot be written.
    """

    def __init__(self, plan: Plan, shelf: Shelf, key: SigningKey) -> None:
        self._plan = plan
        self._shelf = shelf
        self._key = key
        self._evaluator = self._kept(draft_evaluator(plan.evaluator, key))
        self._uses = Counter(
            id(trial.model) for trial in plan.trials.values() if isinstance(trial.model, torch.nn.Module)
        )
        self._shared = {identity for identity, uses in self._uses.items() if uses > 1}
        self._models: dict[int, Volume] = {}

    def job(self, number: int, name: str, devices: tuple[int, ...] = ()) -> Job:
        """The job of a trial on these devices. Whatever pickling the user's objects raises, this raises."""
        trial = self._plan.trials[name]
        timeout = self._plan.timeout if trial.timeout is None else trial.timeout
        model = self._shared_model(trial)
        order = Order(
            evaluator=self._evaluator.digest,
            model_file=None if model is None else model.digest,
            model=trial.model if model is None else None,
            task=trial.task,
            arguments=trial.arguments(timeout),
            rename=trial.rename,
            missing=trial.missing,
            seed=trial_seed(self._plan.seed, name),
            state_dict=self._plan.state_dicts,
            devices=list(devices),
            name=name,
            slot=number,
        )
        payload = order.encode(self._key)
        files = dict(self._evaluator.files) | (dict(model.files) if model is not None else {})
        return Job(number, payload, files, timeout)

    def release(self, name: str) -> None:
        """A trial has finished: its model's file goes if no other trial needs it."""
        identity = id(self._plan.trials[name].model)
        self._uses[identity] -= 1
        if not self._uses[identity] and (volume := self._models.pop(identity, None)) is not None:
            self._shelf.remove(volume)

    def _shared_model(self, trial: Trial) -> Volume | None:
        identity = id(trial.model)
        if identity not in self._shared:
            return None
        if identity not in self._models:
            self._models[identity] = self._kept(draft_value(trial.model, kind=MODEL, key=self._key))
        return self._models[identity]

    def _kept(self, draft: Draft) -> Volume:
        # Workers take the tensors of a sealed file as they are.
        return self._shelf.put(draft.nbytes, partial(draft.write, unchanged=True), sealed=True)
