"""NNI: any evaluator as what NNI 3.0's pruners, quantizers and distillers take."""

from __future__ import annotations

from typing import Any

from ....evaluator_schema.evaluator import Evaluator
from ...binding.framework import framework_of


def as_nni(evaluator: Evaluator) -> Any:
    """Let NNI's compressors train, patch and evaluate by an evaluator of ours.

    Args:
        evaluator: The evaluator, of any kind. Any number of compressors may share what is returned, one at a
            time.

    Returns:
        An instance of NNI's own `Evaluator`, without a type here, as NNI ships none.

    Raises:
        BindError: It is no evaluator.
        ImportError: NNI is not installed, or what is installed is not NNI 3.

    Example:
        >>> from nni.compression.pruning import TaylorPruner  # doctest: +SKIP
        >>> config = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]  # doctest: +SKIP
        >>> pruner = TaylorPruner(model, config, as_nni(evaluator), training_steps=50)  # doctest: +SKIP
        >>> model, masks = pruner.compress()  # doctest: +SKIP
    """
    framework_of(evaluator)
    try:
        import nni.compression.utils.evaluator  # noqa: F401 - asked for here, to tell what is missing
    except ImportError as error:
        raise ImportError(
            f"as_nni needs NNI 3, and nni.compression cannot be imported ({error}): install it with "
            "pip install 'rebind[nni]'"
        ) from error
    from .evaluator import NniEvaluator

    return NniEvaluator(evaluator)
