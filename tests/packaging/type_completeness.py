"""Fails where a public name of the built wheel has a type that type checkers do not know.

    python tests/packaging/type_completeness.py dist

The wheel is unpacked beside nothing else: what pyright sees is what those see who install it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Their bases are NNI's, and NNI ships no types.
_UNTYPED_BASES = {"rebind.runtime.integrations.nni.evaluator.NniEvaluator"}


def completeness(wheel: Path) -> dict:
    """What `pyright --verifytypes` tells of a wheel, other packages' types left aside."""
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = ["-m", "pyright", "--outputjson", "--ignoreexternal", "--verifytypes", "rebind"]
        told = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    return json.loads(told.stdout)["typeCompleteness"]


def main(folder: str) -> None:
    """Check the one wheel in a folder."""
    (wheel,) = Path(folder).glob("*.whl")
    found = completeness(wheel)
    symbols = [symbol for symbol in found["symbols"] if symbol["isExported"]]
    unknown = {symbol["name"] for symbol in symbols if not symbol["isTypeKnown"]}
    print(f"{len(symbols) - len(unknown):,} of {len(symbols):,} public names have known types")
    if len(symbols) < 1000:
        sys.exit("That is too few: pyright has not found the package's own names.")
    if to_mend := sorted(unknown - _UNTYPED_BASES):
        sys.exit("\n".join(["Give these a type, or a name with an underscore:", *to_mend]))


if __name__ == "__main__":
    main(sys.argv[1])
