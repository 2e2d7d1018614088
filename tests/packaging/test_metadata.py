"""What the project says of itself: one version everywhere, a citation, and the versions that are tested."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import rebind

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHON = "{}.{}".format(*sys.version_info)
TORCH = ".".join(torch.__version__.split(".")[:2])


def test_the_version_is_the_same_everywhere():
    """In the package, its metadata, its citation and its changelog."""
    assert rebind.__version__ == PROJECT["version"]
    assert f"\n## {PROJECT['version']} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_citation_has_what_its_format_demands():
    """Of CFF 1.2.0: message, title and authors with a name; and it says what the metadata says."""
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert cited["message"]
    assert cited["title"] == PROJECT["name"]
    assert cited["authors"] == PROJECT["authors"]
    assert cited["version"] == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]


def test_what_is_said_to_be_tested_is_what_runs_this_test():
    """Python and torch, on the pages, in the classifiers and among the constraints."""
    classifiers = [entry for entry in PROJECT["classifiers"] if re.search(r":: \d\.\d+$", entry)]
    assert classifiers == [f"Programming Language :: Python :: {PYTHON}"]
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert pinned["torch"] == torch.__version__.partition("+")[0]
    assert f"Python {PYTHON} and torch {TORCH} on Linux" in (ROOT / "README.md").read_text()
    assert f"Python {PYTHON}" in (ROOT / "CONTRIBUTING.md").read_text()
    assert f"Python {PYTHON}" in (ROOT / "docs" / "getting-started.md").read_text()
