"""Lets the tests of this folder find what they share. Lightning's advice on settings is no error here."""

import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

_ADVICE = (
    "The '.*_dataloader' does not have many workers",
    "The number of training batches .* is smaller than the logging interval",
    "GPU available but not used",
    "'saved_variables' is deprecated",  # NNI's own quantizers
    "Full backward hook is firing",  # NNI's DoReFaQuantizer hooks the first layer too
    "Starting from v1.9.0, `tensorboardX` has been removed",
    ".*in eval mode at the start of training",
    "'pin_memory' argument is set as true",
    "The `.*` .*treespec",
    "`isinstance\\(treespec",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for advice in _ADVICE:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{advice}"))
