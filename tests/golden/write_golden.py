"""Write the golden files of the current format: `python tests/golden/write_golden.py`.

Run it once for each format version, and before the first release of one. Files of old versions stay.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cloudpickle
import golden_parts as parts

from rebind.serialization import pack_file, save
from rebind.serialization.format import FORMAT

HERE = Path(__file__).parent


def main() -> None:
    """Write them all."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    save(parts.declared(), HERE / f"{FORMAT}-declared.rebind")
    save(parts.declared(), HERE / f"{FORMAT}-declared-signed.rebind", parts.KEY)
    cloudpickle.register_pickle_by_value(parts)
    # A signing key is not pickled, and functions of a module bring along only what they use.
    save(parts.with_code(), HERE / f"{FORMAT}-code-{python}.rebind", parts.KEY)
    pack_file(parts.value(), HERE / f"{FORMAT}-value-{python}.rebind", kind="golden", key=parts.KEY)
    for path in HERE.glob(f"{FORMAT}-*.rebind"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
