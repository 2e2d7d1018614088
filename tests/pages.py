"""The pages of the documentation, whose examples are run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

# Which tests run the Python blocks of a page: all of them, each as it stands. A page that has any is here.
RUN_BY = {
    "README.md": ["tests/test_readme.py"],
    "docs/algorithms.md": ["tests/test_guides.py"],
    "docs/distributed.md": ["tests/distributed_training/test_distributed_docs.py"],
    "docs/errors.md": ["tests/test_errors_page.py"],
    "docs/getting-started.md": ["tests/test_guides.py"],
    "docs/lightning.md": ["tests/test_guides.py"],
    "docs/moving-from-nni.md": ["tests/test_guides.py"],
    "docs/nni.md": ["tests/integrations/test_nni_docs.py"],
    "docs/property-tests.md": ["tests/test_guides.py"],
    "docs/pytorch.md": ["tests/test_guides.py"],
    "docs/searches.md": ["tests/test_pages.py", "tests/clusters/test_cluster_search.py"],
    "docs/signing.md": ["tests/test_guides.py"],
    "docs/torch-pruning.md": ["tests/test_pages.py"],
    "docs/torchao.md": ["tests/test_pages.py"],
    "docs/transformers.md": ["tests/test_pages.py"],
    "docs/trials.md": ["tests/test_guides.py", "tests/clusters/test_cluster_tls.py"],
}


def pages():
    """Every page of the site and at the root, by its path."""
    found = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    return {str(page.relative_to(ROOT)): page.read_text() for page in sorted(found)}


def fences(text):
    """Give each fenced block of a text as its language and its content."""
    return re.findall(r"^```(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


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
