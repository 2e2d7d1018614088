"""The libraries that rebind is measured beside: which are installed here, and in which version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

# The name of the distribution, and what is imported of it.
MODULES = {
    "torch": "torch",
    "pytorch-lightning": "pytorch_lightning",
    "fiddle": "fiddle",
    "hydra-zen": "hydra_zen",
    "jsonargparse": "jsonargparse",
    "nni": "nni",
    "cloudpickle": "cloudpickle",
    "safetensors": "safetensors",
    "loky": "loky",
    "joblib": "joblib",
    "ray": "ray",
    "distributed": "distributed",
    "scikit-learn": "sklearn",
}


def installed(name: str) -> bool:
    """Tell whether a library is installed."""
    return find_spec(MODULES[name]) is not None


def versions() -> dict[str, str]:
    """Give the versions of those that are installed."""
    found = {}
    for name in MODULES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
