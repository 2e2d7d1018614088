"""What `configure_optimizers` returns, in every form that Lightning allows, brought into one form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer


@dataclass(frozen=True)
class Configured:
    """The optimizers and schedulers of a `LightningModule`.

    Attributes:
        optimizers: The optimizers.
        lr_schedulers: The schedulers.
        options: For each scheduler, how Lightning runs it: `interval`, `frequency`, `monitor` and so on.
    """

    optimizers: tuple[Any, ...] = ()
    lr_schedulers: tuple[Any, ...] = ()
    options: tuple[dict[str, Any], ...] = ()


def read_configured(returned: Any) -> Configured:
    """Read what `configure_optimizers` returned; nothing of it is changed.

    Args:
        returned: None; an optimizer; a dict with `optimizer` and perhaps `lr_scheduler` and `monitor`; a
            list or tuple of optimizers or of such dicts; optimizers and schedulers as two lists; or an
            optimizer and a scheduler. A scheduler may stand in a dict with how it is run.

    Raises:
        ValueError: It is none of these.
    """
    if returned is None:
        return Configured()
    if _is_optimizer(returned):
        return Configured((returned,))
    if isinstance(returned, Mapping):
        return _read_dicts([returned])
    if not isinstance(returned, list | tuple):
        raise ValueError(_unknown(returned))
    items = list(returned)
    if all(map(_is_optimizer, items)):
        return Configured(tuple(items))
    if all(isinstance(item, Mapping) and "optimizer" in item for item in items):
        return _read_dicts(items)
    if len(items) == 2:
        first, second = items
        optimizers = list(first) if isinstance(first, list | tuple) else [first]
        listed = list(second) if isinstance(second, list | tuple) else [second]
        if all(map(_is_optimizer, optimizers)):
            read = [_read_scheduler(item, None) for item in listed if item is not None]
            return Configured(tuple(optimizers), tuple(s for s, _ in read), tuple(o for _, o in read))
    raise ValueError(_unknown(returned))


def _read_dicts(items: list[Mapping[str, Any]]) -> Configured:
    read: list[tuple[Any, dict[str, Any]]] = []
    for item in items:
        unknown = sorted(map(str, item.keys() - {"optimizer", "lr_scheduler", "monitor"}))
        if unknown:
            raise ValueError(
                f"configure_optimizers returned a dict with {', '.join(map(repr, unknown))}; it may have "
                "'optimizer', 'lr_scheduler' and 'monitor', and how a scheduler is run stands beside it: "
                "{'optimizer': ..., 'lr_scheduler': {'scheduler': ..., 'interval': 'step'}}"
            )
        if not _is_optimizer(item.get("optimizer")):
            raise ValueError(
                "configure_optimizers returned a dict whose 'optimizer' is "
                f"{type(item.get('optimizer')).__name__}, and not an optimizer"
            )
        if item.get("lr_scheduler") is not None:
            read.append(_read_scheduler(item["lr_scheduler"], item.get("monitor")))
    optimizers = tuple(item["optimizer"] for item in items)
    return Configured(optimizers, tuple(s for s, _ in read), tuple(o for _, o in read))


def _read_scheduler(value: Any, monitor: Any) -> tuple[Any, dict[str, Any]]:
    options = {key: held for key, held in value.items() if key != "scheduler"} if _is_config(value) else {}
    if isinstance(value, Mapping):
        if "scheduler" not in value:
            raise ValueError(
                "configure_optimizers returned a dict for a scheduler without 'scheduler'; it has "
                f"{', '.join(map(repr, value)) or 'nothing'}"
            )
        value = value["scheduler"]
    if not (hasattr(value, "step") and hasattr(value, "state_dict")):
        raise ValueError(
            f"configure_optimizers returned {type(value).__name__} in the place of a learning-rate scheduler"
        )
    if monitor is not None:
        options.setdefault("monitor", monitor)
    return value, options


def _is_config(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_optimizer(value: Any) -> bool:
    if isinstance(value, Optimizer):
        return True
    parts = ("param_groups", "defaults", "state", "state_dict", "load_state_dict")
    return not isinstance(value, type) and all(hasattr(value, name) for name in parts)


def _unknown(returned: Any) -> str:
    inside = ""
    if isinstance(returned, list | tuple):
        inside = f" of {', '.join(type(item).__name__ for item in returned[:4])}"
    return (
        f"configure_optimizers returned a {type(returned).__name__}{inside}; it may return an optimizer, a "
        "dict with 'optimizer' and 'lr_scheduler', a list of either, a list of optimizers and one of "
        "schedulers, an optimizer and a scheduler, or None"
    )
