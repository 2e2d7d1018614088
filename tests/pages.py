"""The pages of the documentation, whose examples are run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page):
    """Give the Python blocks of a page."""
    found = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found, f"{page} has no example"
    return found


def run_page(page, folder, chosen=lambda block: True):
    """Run the chosen blocks of a page as one script in a process of its own; give what it printed."""
    script = folder / "example.py"
    script.write_text("\n".join(block for block in blocks(page) if chosen(block)))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
