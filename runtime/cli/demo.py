"""`rebind demo`: the example of the repository that does the main job on real data."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .outcomes import FAILED, complain

if TYPE_CHECKING:
    from argparse import Namespace

_ROOT: Final = Path(__file__).parents[2]
_NAME: Final = "digits_sweep.py"
_LIBRARIES: Final = {"sklearn": "scikit-learn", "torch_pruning": "torch-pruning", "matplotlib": "matplotlib"}


def command(options: Namespace) -> int:
    """Run the example as the script that it is, and give its exit code."""
    missing = [name for module, name in _LIBRARIES.items() if find_spec(module) is None]
    if missing:
        complain(f"the demo needs {', '.join(missing)}: pip install 'rebind[demo]'")
        return FAILED
    arguments = [sys.executable, str(script()), *(["--json"] if options.json else [])]
    return subprocess.run(arguments, check=False).returncode  # noqa: S603 - our own file


def script() -> Path:
    """The example: in the repository it lies in `examples/`, in a wheel inside of this room."""
    places = (_ROOT / "examples" / _NAME, _ROOT / "runtime" / "_examples" / _NAME)
    return next(place for place in places if place.exists())
