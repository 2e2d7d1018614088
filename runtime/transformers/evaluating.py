"""A score by a Trainer: one run over the evaluation data, and one of the metrics that come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...evaluator_schema.errors import EvaluationError
from ..binding.evaluation import Evaluation, evaluation_of


def run_evaluation(trainer: Any) -> Evaluation:
    """Run `Trainer.evaluate` and read the score.

    Raises:
        EvaluationError: There is no evaluation data, or no metric that is the score.
    """
    from transformers import Trainer

    if trainer.eval_dataset is None and type(trainer).get_eval_dataloader is Trainer.get_eval_dataloader:
        raise EvaluationError(
            "the recorded Trainer has no evaluation data: give it eval_dataset= where it is built"
        )
    return read_metrics(trainer.evaluate(), trainer.args)


def read_metrics(metrics: Mapping[str, Any], args: Any) -> Evaluation:
    """Read the score: the metric `default`, or else the `metric_for_best_model` of the arguments.

    Where the arguments say that lower is better (`greater_is_better`), which transformers itself concludes
    for losses, the score is the metric's negative: higher is better, as everywhere.

    Args:
        metrics: By their names, before which `Trainer.evaluate` puts `eval_`.
        args: The `TrainingArguments`.

    Raises:
        EvaluationError: Neither was computed, or it is no number.
    """
    named = args.metric_for_best_model
    candidates = [("default", True)]
    if named is not None:
        candidates.append((named, args.greater_is_better is not False))
    for name, is_greater_better in candidates:
        for key in (f"eval_{name}", name):
            if key in metrics:
                # The score is negated, and what was logged is not.
                score = evaluation_of(metrics[key]).score
                assert score is not None  # noqa: S101 - a number has one
                return Evaluation(score if is_greater_better else -score, dict(metrics))
    found = ", ".join(sorted(metrics)) or "nothing"
    missing = f"neither 'default' nor {named!r}" if named is not None else "no 'default'"
    raise EvaluationError(
        f"the evaluation computed {missing}, only {found}; let compute_metrics= of the Trainer return the "
        "score (higher is better) as 'default', or name it in TrainingArguments(metric_for_best_model=...)"
    )
