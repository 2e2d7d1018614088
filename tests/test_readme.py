"""The README's own words, run."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_readmes_example_runs_and_prints_a_score(tmp_path):
    """The first thing that a newcomer copies works as it stands."""
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) <= 1


def test_the_readmes_commands_are_in_the_makefile():
    """Each command exists."""
    makefile = (README.parent / "Makefile").read_text()
    for command in re.findall(r"^make ([\w-]+)", README.read_text(), re.MULTILINE):
        assert f"\n{command}:" in makefile
