"""A score by Lightning: one run over the test or validation data, and one of the metrics that were logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ...evaluator_schema.errors import EvaluationError
from ...evaluator_schema.lightning_kinds import Package
from ..binding.evaluation import Evaluation, evaluation_of


def run_evaluation(package: Package, model: Any, module: Any, trainer: Any, data_module: Any) -> list[Any]:
    """Run `Trainer.test` where module and data module have a test, and `Trainer.validate` otherwise.

    Returns:
        The logged metrics, one mapping for each data loader.

    Raises:
        EvaluationError: They have neither.
    """
    is_overridden = import_module(f"{package}.utilities.model_helpers").is_overridden
    for stage, run in (("test", trainer.test), ("val", trainer.validate)):
        step = {"test": "test_step", "val": "validation_step"}[stage]
        loader = f"{stage}_dataloader"
        if is_overridden(step, module) and (
            is_overridden(loader, data_module) or is_overridden(loader, module)
        ):
            results: list[Any] = run(model, datamodule=data_module, verbose=False) or []
            return results
    raise EvaluationError(
        f"{type(module).__name__} and {type(data_module).__name__} have no test_step with a test_dataloader "
        "and no validation_step with a val_dataloader; define one of the pairs"
    )


def read_metrics(results: Sequence[Mapping[str, Any]], metric: str) -> Evaluation:
    """Read the score: the metric's mean over the data loaders that logged it.

    Lightning adds `/dataloader_idx_0` and so on to a name where there are several loaders.

    Raises:
        EvaluationError: It was not logged, or is no number.
    """
    logged = {name: value for result in results for name, value in result.items()}
    values = [
        float(result[name])
        for index, result in enumerate(results)
        for name in (metric, f"{metric}/dataloader_idx_{index}")
        if name in result
    ]
    if not values:
        found = ", ".join(map(repr, sorted(logged))) or "nothing"
        raise EvaluationError(
            f"the metric {metric!r} was not logged, only {found}; write self.log({metric!r}, value) in the "
            "test_step or validation_step, or name another one: LightningEvaluator(..., metric=...)"
        )
    return evaluation_of((sum(values) / len(values), logged))
