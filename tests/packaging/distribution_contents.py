"""Checks that a wheel and an sdist hold the three rooms under `rebind/`, and nothing at the top level."""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOMS = {"evaluator_schema", "serialization", "runtime"}


def main(folder):
    (wheel,), (sdist,) = Path(folder).glob("*.whl"), Path(folder).glob("*.tar.gz")
    names = [Path(name).parts for name in zipfile.ZipFile(wheel).namelist()]
    tops = {parts[0] for parts in names if not parts[0].endswith(".dist-info")}
    assert tops == {"rebind"}, f"the wheel holds {sorted(tops)} at its top level"
    inside = {parts[1] for parts in names if parts[0] == "rebind" and len(parts) > 2}
    assert inside >= ROOMS, f"the wheel lacks {ROOMS - inside}"
    strangers = inside - ROOMS - {"testing"}
    assert not strangers, f"the wheel holds {sorted(strangers)} under rebind/"
    with tarfile.open(sdist) as archive:
        sources = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    assert sources >= ROOMS | {"LICENSE", "README.md", "pyproject.toml"}, sorted(sources)
    print(f"{wheel.name} and {sdist.name} hold what they should")


if __name__ == "__main__":
    main(sys.argv[1])
