"""The optimizers and schedulers of a `LightningModule`: built by its own code, or from what was recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ...evaluator_schema.configured import read_configured
from ...evaluator_schema.errors import BindError
from ...evaluator_schema.lightning_kinds import Package
from ..binding.optimized import match_optimized
from ..binding.reinitialise import Reinitialised
from ..naming.inventory import Inventory
from ..naming.matching import Match
from ..naming.renaming import Rename

_log = logging.getLogger("rebind")


@dataclass(frozen=True)
class ConfiguredModel(Reinitialised):
    """What was built for a module, and how Lightning runs each scheduler.

    Attributes:
        options: For each scheduler, its `interval`, `frequency`, `monitor` and so on.
    """

    options: tuple[Mapping[str, Any], ...] = ()


def configure(
    module: Any,
    inventory: Inventory,
    started: Callable[[], AbstractContextManager[Any]],
    *,
    rename: Rename | None = None,
    current: Match | None = None,
) -> ConfiguredModel:
    """Let a module's own `configure_optimizers` build its optimizers.

    Args:
        module: The module.
        inventory: The model that is bound, which is the module or a compiled form of it.
        started: Attaches a trainer to the module, with its data set up, for code that asks for it.
        rename: From the names in the model that was bound so far, to carry state.
        current: Where the parameters were in that model.

    Raises:
        BindError: It raises, returns what Lightning does not allow, or optimizes no parameter of the model.
    """
    name = f"configure_optimizers of {type(module).__name__}"
    try:
        configured = read_configured(_returned(module, started))
    except Exception as error:
        raise BindError(f"{name}: {error}") from error
    if not configured.optimizers:
        _log.warning("%s returns no optimizer, so a training will change nothing", name)
    matched = match_optimized(configured.optimizers, inventory, rename, current, builder=_BUILDER)
    if configured.optimizers and not any(matched.found.values()):
        raise BindError(
            f"{name} optimizes no parameter of the module that is bound; let it take self.parameters(), and "
            "not those of a module from outside"
        )
    return ConfiguredModel(
        list(configured.optimizers), list(configured.lr_schedulers), matched, configured.options
    )


_BUILDER = (
    "the bound module's own configure_optimizers builds them; create the evaluator with model= to have them "
    "recorded"
)


def _returned(module: Any, started: Callable[[], AbstractContextManager[Any]]) -> Any:
    """Call it, at first without a trainer: that takes no time, and nearly all of them need none."""
    attached: AbstractContextManager[Any] = nullcontext()
    try:
        with attached:
            return module.configure_optimizers()
    except Exception:  # noqa: BLE001 - it may have asked for the trainer, in whatever way
        attached = started()
    with attached:
        return module.configure_optimizers()


def lightning_configs(
    package: Package, module: Any, schedulers: Sequence[Any], options: Sequence[Mapping[str, Any]]
) -> list[Any]:
    """Give Lightning's own description of schedulers, made and checked by Lightning.

    Raises:
        BindError: Lightning does not take them.
    """
    core = import_module(f"{package}.core.optimizer")
    # Lightning writes into these dicts, which are nobody else's.
    entries = [{"scheduler": one, **option} for one, option in zip(schedulers, options, strict=True)]
    try:
        if module.automatic_optimization:
            configs = core._configure_schedulers_automatic_opt(entries, None)
        else:
            configs = core._configure_schedulers_manual_opt(entries)
        core._validate_scheduler_api(configs, module)
    except Exception as error:
        raise BindError(f"the schedulers of {type(module).__name__}: {error}") from error
    return list(configs)


def check_optimizers(package: Package, module: Any, built: ConfiguredModel) -> None:
    """Let Lightning check the optimizers and schedulers of a module, before a training needs them.

    Raises:
        BindError: Lightning does not take them.
    """
    core = import_module(f"{package}.core.optimizer")
    configs = lightning_configs(package, module, built.lr_schedulers, built.options)
    try:
        core._validate_multiple_optimizers_support(built.optimizers, module)
        core._validate_optimizers_attached(built.optimizers, configs)
    except Exception as error:
        raise BindError(f"the optimizers of {type(module).__name__}: {error}") from error


def stand_in_optimizers(package: Package) -> list[Any]:
    """Give what Lightning itself takes where there is no optimizer."""
    return [import_module(f"{package}.core.optimizer")._MockOptimizer()]
