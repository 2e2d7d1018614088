"""`LightningEvaluator`: the evaluator of those whose training is a `LightningModule`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from torch.nn import Module

from .capture.capture import capture
from .capture.placing import place_adopted
from .capture.plain import capture_plain
from .checking.problems import Problems
from .configured import Configured, read_configured
from .construction import LIVE, Value
from .evaluator import Evaluator
from .lightning_kinds import package_of
from .specs import LRSchedulers, Optimizers, Spec, check_optimizers, check_schedulers, checked
from .traced_parts import checked_part, note_untraced


class LightningEvaluator(Evaluator):
    """How to train and evaluate similar models, by Lightning.

    A training constructs the trainer and the data module anew, so no state passes from one to the next.

    Args:
        trainer: The traced trainer: `trace(pl.Trainer)(max_epochs=10)`.
        data_module: The traced data module: `trace(MyDataModule)(...)`.
        dummy_input: An example input for those who trace the model's graph; any nesting of tensors. By
            default it is taken from the data module.
        model: Records the optimizers and schedulers that this module's `configure_optimizers` returns, by
            the names of its parameters. Without it, the `configure_optimizers` of the module that is bound
            is called. The module is not kept.
        metric: The logged metric that is the score (higher is better).

    Raises:
        ValidationError: Anything is wrong with the above; every problem is told at its path.

    Example:
        >>> import pytorch_lightning as pl
        >>> from rebind import LightningEvaluator, trace
        >>> class Data(pl.LightningDataModule): ...
        >>> trainer = trace(pl.Trainer)(max_epochs=10, accelerator="cpu", logger=False)
        >>> LightningEvaluator(trainer, trace(Data)())
        LightningEvaluator
        ├── trainer: Trainer(max_epochs=10, accelerator='cpu', logger=False)
        ├── data_module: Data()
        └── metric: 'default'
    """

    trainer: Spec
    data_module: Spec
    dummy_input: Value = None
    metric: str = Field(default="default", min_length=1)
    optimizers: Optimizers = None
    lr_schedulers: LRSchedulers = None
    scheduler_options: Value = None

    def __init__(
        self,
        trainer: Any,
        data_module: Any,
        dummy_input: Any = None,
        *,
        model: Module | None = None,
        metric: str = "default",
    ) -> None:
        fields = {
            "trainer": trainer,
            "data_module": data_module,
            "dummy_input": dummy_input,
            "metric": metric,
        }
        self.__pydantic_validator__.validate_python(
            fields, self_instance=self, context={"model": model, LIVE: True}
        )

    # With this mark, `model_validate` fills the fields itself and does not come through `__init__`.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pydantic's own mark

    @model_validator(mode="wrap")
    @classmethod
    def _capture(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        fields = dict(data)
        model = (info.context or {}).get("model")
        live = [fields.get("trainer"), fields.get("data_module")]
        problems = _untraced(fields)
        if not problems:
            fields["trainer"], fields["data_module"] = capture_plain(live)
        names = None
        if model is not None:
            configured = _configured(model, live[0], problems)
            optimizers, schedulers, names = capture(
                list(configured.optimizers), list(configured.lr_schedulers) or None, model
            )
            optimizers, schedulers = place_adopted(optimizers, schedulers)
            fields.update(optimizers=optimizers or None, lr_schedulers=schedulers)
            fields["scheduler_options"] = list(configured.options) or None
        try:
            evaluator = handler(fields)
        except ValidationError as error:
            problems.include((), error)
        problems.raise_if_any(cls.__name__)
        if names is not None:
            evaluator._live = names.live
        return evaluator

    @field_validator("trainer", mode="after")
    @classmethod
    def _check_trainer(cls, value: Any) -> Any:
        return _checked_part("trainer", value, "Trainer", "trace(pl.Trainer)(max_epochs=10)")

    @field_validator("data_module", mode="after")
    @classmethod
    def _check_data_module(cls, value: Any, info: ValidationInfo) -> Any:
        value = _checked_part("data_module", value, "LightningDataModule", "trace(MyDataModule)(...)")
        trainer = info.data.get("trainer")
        ours = package_of(value.target, "LightningDataModule")
        theirs = package_of(trainer.target, "Trainer") if trainer is not None else None
        if ours is not None and theirs is not None and ours != theirs:
            raise ValueError(
                f"the data module is of {ours}, and the trainer of {theirs}; take both from one package"
            )
        return value

    @field_validator("dummy_input", mode="after")
    @classmethod
    def _check_dummy_input(cls, value: Any) -> Any:
        return checked("dummy_input", value, None)

    @field_validator("optimizers", mode="after")
    @classmethod
    def _check_optimizers(cls, value: Any) -> Any:
        return None if value is None else check_optimizers(value)

    @field_validator("lr_schedulers", mode="after")
    @classmethod
    def _check_schedulers(cls, value: Any, info: ValidationInfo) -> Any:
        return None if value is None else check_schedulers(value, info.data.get("optimizers"))

    @field_validator("scheduler_options", mode="after")
    @classmethod
    def _check_options(cls, value: Any, info: ValidationInfo) -> Any:
        count = len(info.data.get("lr_schedulers") or ())
        options = [] if value is None else value
        if not isinstance(options, list | tuple) or not all(isinstance(item, dict) for item in options):
            raise ValueError("scheduler_options is a list of dicts, one for each scheduler")
        if "lr_schedulers" in info.data and len(options) != count:
            raise ValueError(f"there are {len(options)} scheduler_options for {count} lr_schedulers")
        for index, option in enumerate(options):
            problem = _option_problem(option)
            if problem:
                raise ValueError(f"scheduler {index}: {problem}")
        return checked("scheduler_options", value, None)

    model_config: ClassVar[ConfigDict] = ConfigDict(validate_default=True)


def _untraced(fields: Mapping[str, Any]) -> Problems:
    """Note the live trainer and data module that were not built by a traced call."""
    problems = Problems()
    for field, base in (("trainer", "Trainer"), ("data_module", "LightningDataModule")):
        note_untraced(field, fields.get(field), _derives_from(base), problems)
    return problems


def _checked_part(field: str, value: Any, base: str, example: str) -> Any:
    return checked_part(field, value, base, _derives_from(base), example)


def _derives_from(base: str) -> Callable[[Any], bool]:
    return lambda kind: package_of(kind, base) is not None


def _configured(model: Module, trainer: Any, problems: Problems) -> Configured:
    """Ask a module for its optimizers and schedulers; what is wrong is noted."""
    if package_of(type(model), "LightningModule") is None:
        problems.add(
            ("model",),
            f"model= takes a LightningModule, not {type(model).__name__}",
            model,
            "lightning_module",
        )
        return Configured()
    try:
        configured = read_configured(_returned(model, trainer))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        problems.add(
            ("model",),
            f"configure_optimizers of {type(model).__name__}: {error}",
            model,
            "configure_optimizers",
        )
        return Configured()
    if not configured.optimizers:
        problems.add(
            ("optimizers",),
            f"configure_optimizers of {type(model).__name__} returns no optimizer; without model=, the bound "
            "module's own is asked",
            None,
        )
    return configured


def _returned(model: Any, trainer: Any) -> Any:
    """Call `configure_optimizers`, first without a trainer, and with this one if that does not do."""
    try:
        return model.configure_optimizers()
    except Exception:  # it may have asked for the trainer, in whatever way
        if package_of(type(trainer), "Trainer") is None or model._trainer is not None:
            raise
    model.trainer = trainer
    try:
        return model.configure_optimizers()
    finally:
        model.trainer = None


def _option_problem(options: Mapping[str, Any]) -> str | None:
    """Say what is wrong with how a scheduler is to be run."""
    interval, frequency = options.get("interval", "epoch"), options.get("frequency", 1)
    if interval not in ("step", "epoch"):
        return f"'interval' must be 'step' or 'epoch', not {interval!r}"
    if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
        return f"'frequency' must be a number from 1 up, not {frequency!r}"
    unknown = sorted(options.keys() - _OPTIONS)
    return (
        f"unknown {', '.join(map(repr, unknown))}; known are {', '.join(sorted(_OPTIONS))}"
        if unknown
        else None
    )


_OPTIONS = frozenset({"interval", "frequency", "monitor", "strict", "name", "reduce_on_plateau", "opt_idx"})
