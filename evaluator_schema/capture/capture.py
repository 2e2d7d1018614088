"""From live optimizers and schedulers to constructions: the step from objects to values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..checking.problems import Invalid, Problems
from ..construction import LIVE, Construction, GroupChange
from ..errors import CaptureError
from ..tracing.amendments import changed_by_hand, changes, has_moved, has_scheduler
from ..tracing.recording import Amendment, ModuleArgument, Record, TensorArgument, registry, tick
from ..values import Iterated, ModuleHole, ParameterHole, ParametersHole, Ref, leaf_values, map_container
from .naming import Names, outermost
from .ordering import renumbered
from .records import Records, named_pairs, with_inner
from .sharing import Sharing
from .siblings import reduced_by_plateaus

Captured = Construction | Invalid
Form = Captured | list[Captured]


def capture(optimizers: Any, lr_schedulers: Any, model: Module | None) -> tuple[Any, Any, Names]:
    """Turn live optimizers and schedulers into constructions.

    Args:
        optimizers: One optimizer or a list of them; what is no live object passes as it is.
        lr_schedulers: Likewise.
        model: The module that parameter names start from, if the caller gave it.

    Returns:
        The same forms with a `Construction`, or an `Invalid` that tells what is wrong, for each object, and
        the names that were used.
    """
    records = Records()
    live = [item for item in (*_listed(optimizers), *_listed(lr_schedulers)) if _is_live(item)]
    found = [record for record in map(records.of, live) if isinstance(record, Record)]
    names = _names_for(found, model)
    capturing = _Capturing(names, records, found, reduced_by_plateaus(_listed(lr_schedulers)))
    captured_optimizers = _map_form(optimizers, capturing.root)
    capturing.optimizers_done = True
    captured_schedulers = _map_form(lr_schedulers, capturing.root)
    captured_optimizers, captured_schedulers = renumbered([captured_optimizers, captured_schedulers])
    return captured_optimizers, captured_schedulers, names


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _map_form(value: Any, each: Callable[[Any], Any]) -> Any:
    return [each(item) for item in value] if isinstance(value, list | tuple) else each(value)


def is_live(value: Any) -> bool:
    """Tell whether a field holds live objects, which have to be captured, and not only specs or data."""
    return any(map(_is_live, _listed(value)))


def _is_live(value: Any) -> bool:
    return value is not None and not isinstance(value, Construction | dict | list | str | int | float)


def _names_for(records: Sequence[Record], model: Module | None) -> Names:
    if model is not None:
        return Names(model, given=True)
    roots = []
    for record in with_inner(records):
        roots += [root() for root in record.roots]
        roots += [
            leaf.live()
            for leaf in leaf_values([record.args, record.kwargs])
            if isinstance(leaf, ModuleArgument)
        ]
    alive = [root for root in roots if root is not None]
    return Names(outermost(alive) if len(alive) == len(roots) else None, given=False)


class _Capturing:
    """One evaluator's worth of records on their way to constructions, with sharing kept."""

    def __init__(self, names: Names, records: Records, found: Sequence[Record], reduced: set[int]) -> None:
        self.names = names
        self._reduced = reduced
        self._records = records
        self.optimizers_done = False
        self._emitted: set[int] = set()
        self._roots = {id(record) for record in found}
        everything = with_inner(found)
        self._schedulers = [
            s for s in (record.result() for record in everything) if isinstance(s, LRScheduler)
        ]
        self._pending = {id(record): self._pending_changes(record) for record in everything}
        self._sharing = Sharing(everything, [a for pending in self._pending.values() for a in pending])

    def root(self, item: Any) -> Any:
        """Capture one optimizer or scheduler that was passed to the evaluator."""
        if not _is_live(item):
            return item
        record = self._records.of(item)
        problems = Problems()
        if isinstance(record, CaptureError):
            problems.add((), str(record), item, "not_adoptable")
            return Invalid(problems)
        if id(record) in self._emitted:
            problems.add((), "the same object is passed twice", item, "duplicate")
            return Invalid(problems)
        try:
            return self._construction(record, problems)
        except ValidationError as error:
            problems.include((), error)
            return Invalid(problems)

    def _construction(self, record: Record, problems: Problems) -> Captured:
        self._emitted.add(id(record))
        self._learn_names(record)
        is_optimizer = isinstance(record.target, type) and issubclass(record.target, Optimizer)
        args = tuple(self._value(v, ("args", i), problems) for i, v in enumerate(record.args))
        kwargs = {k: self._value(v, ("kwargs", k), problems) for k, v in record.kwargs.items()}
        if is_optimizer:
            self._refuse_plain_parameters(record, problems)
        self._refuse_hidden_parameters(record, problems)
        changed = self._changes(record, problems)
        if problems:
            return Invalid(problems)
        return Construction.model_validate(
            {
                "target": record.target,
                "args": args,
                "kwargs": kwargs,
                "order": record.order + _SHIFT,
                "changes": changed,
                "location": f"{Path(record.file).name}:{record.line}" if record.file else None,
            },
            context={LIVE: True},
        )

    def _learn_names(self, record: Record) -> None:
        amended = [a.options for a in (*record.amendments, *self._pending.get(id(record), ()))]
        for name, argument in named_pairs([record.args, record.kwargs, amended]):
            tensor = argument.live()
            if tensor is not None:
                self.names.learn(tensor, name)

    def _refuse_plain_parameters(self, record: Record, problems: Problems) -> None:
        """Tensors that an optimizer trains are holes; one that is no `Parameter` needs `model=`."""
        first = record.args[0] if record.args else record.kwargs.get("params")
        groups = first.items if isinstance(first, Iterated) else first
        for group in groups if isinstance(groups, list | tuple) else [groups]:
            trained = group.get("params") if isinstance(group, dict) else group
            for leaf in leaf_values(trained):
                if isinstance(leaf, TensorArgument) and leaf.value is not None and not self._is_hole(leaf):
                    problems.add((), "an optimized tensor is neither a Parameter nor in the model", leaf)

    def _refuse_hidden_parameters(self, record: Record, problems: Problems) -> None:
        """Every parameter must be an argument, or come from a module that is one; a closure keeps the old."""
        optimizer = record.result()
        if not isinstance(optimizer, Optimizer) or record.groups is None:
            return
        amended = [a.options for a in (*record.amendments, *self._pending.get(id(record), ()))]
        given = list(leaf_values([record.args, record.kwargs, amended]))
        if any(isinstance(leaf, ModuleArgument) for leaf in given):
            return
        known = {id(leaf.live()) for leaf in given if isinstance(leaf, TensorArgument)}
        hidden = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in known]
        if hidden:
            problems.add(
                (),
                f"{len(hidden)} parameters of this {type(optimizer).__name__} are not among the arguments of "
                "the traced call, so they cannot be replaced by those of another model; pass them, or the "
                "model, as an argument",
                None,
                "hidden_parameters",
            )

    def _is_hole(self, argument: TensorArgument) -> bool:
        tensor = argument.live()
        return (
            argument.value is None
            or argument.value.requires_grad
            or (tensor is not None and self.names.knows(tensor))
        )

    def _changes(self, record: Record, problems: Problems) -> tuple[GroupChange, ...]:
        found = [*record.amendments, *self._pending.get(id(record), ())]
        for amendment in found:
            if amendment.refusal is not None:
                problems.add((), amendment.refusal, None, "unrecorded_change")
        return tuple(
            GroupChange.model_validate(
                {
                    "order": amendment.order + _SHIFT,
                    "group": amendment.group,
                    "options": self._value(amendment.options, ("changes", number), problems),
                },
                context={LIVE: True},
            )
            for number, amendment in enumerate(found)
        )

    def _pending_changes(self, record: Record) -> list[Amendment]:
        """List what was done to an optimizer since it was last noted."""
        optimizer = record.result()
        if not isinstance(optimizer, Optimizer) or record.groups is None:
            return []
        unseen = has_scheduler(optimizer) and not record.groups.scheduled
        unseen = unseen or any(s.optimizer is optimizer and registry.get(s) is None for s in self._schedulers)
        scheduled = unseen or has_moved(optimizer) or id(optimizer) in self._reduced
        found = changes(record, optimizer, scheduled=scheduled)
        by_hand = changed_by_hand(optimizer, self._schedulers) if scheduled else None
        return found if by_hand is None else [*found, Amendment(tick(), 0, {}, by_hand)]

    def _value(self, value: Any, path: tuple[str | int, ...], problems: Problems) -> Any:
        if isinstance(value, Record):
            return self._inner(value, path, problems)
        if isinstance(value, TensorArgument):
            return self._tensor(value, path, problems)
        if isinstance(value, ModuleArgument):
            return self._module(value, path, problems)
        if isinstance(value, Optimizer | LRScheduler):
            return self._untraced(value, path, problems)
        if isinstance(value, Iterated):
            return Iterated(self._value(value.items, path, problems))
        mapped = map_container(value, lambda item: self._value(item, path, problems))
        return self._compressed(mapped) if isinstance(mapped, list) else self._sharing.of(mapped)

    def _inner(self, record: Record, path: tuple[str | int, ...], problems: Problems) -> Any:
        if id(record) in self._emitted or id(record) in self._roots:
            return Ref(record.order + _SHIFT)
        if self.optimizers_done and isinstance(record.result(), Optimizer):
            problems.add(path, _FOREIGN, record.result(), "foreign_optimizer")
            return None
        inner = Problems()
        captured = self._construction(record, inner)
        if isinstance(captured, Invalid):
            try:
                inner.raise_if_any("inner")
            except ValidationError as error:
                problems.include(path, error)
        return captured

    def _untraced(self, value: Any, path: tuple[str | int, ...], problems: Problems) -> Any:
        record = self._records.of(value)
        if isinstance(record, CaptureError):
            problems.add(path, str(record), value, "not_adoptable")
            return None
        return self._inner(record, path, problems)

    def _tensor(self, argument: TensorArgument, path: tuple[str | int, ...], problems: Problems) -> Any:
        if not self._is_hole(argument):
            return self._sharing.of_tensor(argument)
        tensor = argument.live()
        if tensor is None:
            problems.add(path, "a recorded parameter is gone: create the evaluator while its model lives")
            return None
        if self.names.given and not self.names.knows(tensor):
            problems.add(
                path,
                f"a parameter of shape {tuple(tensor.shape)} is not in the model given as model=; pass the "
                "model that the optimizer was built for",
                tensor,
                "unknown_parameter",
            )
            return None
        name, *aliases = self.names.of(tensor)
        return ParameterHole(name, tuple(aliases))

    def _module(self, argument: ModuleArgument, path: tuple[str | int, ...], problems: Problems) -> Any:
        module = argument.live()
        name = None if module is None else self.names.of_module(module)
        if name is None:
            problems.add(
                path,
                "a recorded module is not part of the model; pass the whole model as model=",
                module,
            )
        return ModuleHole(name or "")

    def _compressed(self, items: list[Any]) -> Any:
        """Give one hole for a list that holds nothing but parameters, or nothing but named ones."""
        named = bool(items) and all(
            type(item) is tuple
            and len(item) == 2
            and isinstance(item[1], ParameterHole)
            and item[0] == item[1].name
            for item in items
        )
        holes = [item[1] for item in items] if named else items
        if not holes or not all(isinstance(hole, ParameterHole) for hole in holes):
            return items
        names = tuple(hole.name for hole in holes)
        aliases = tuple((hole.name, hole.aliases) for hole in holes if hole.aliases)
        return ParametersHole(names, named, self.names.in_order(names), aliases)


# Adopted objects have negative orders: they stand before everything that was traced.
_SHIFT = 1 << 40

_FOREIGN = (
    "this scheduler drives an optimizer that is not among `optimizers`; pass that optimizer too, or build "
    "the scheduler on one that is passed"
)
