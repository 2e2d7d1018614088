"""Transformers stays off the network, and its advice on settings that tests choose is no error here."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

_ADVICE = ("'pin_memory' argument is set as true",)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/transformers_trainer" in str(item.path):
            for advice in _ADVICE:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{advice}"))


@pytest.fixture(autouse=True)
def one_thread():
    """As in a worker: sums of another number of threads differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """A Trainer makes its output folder where the test runs."""
    monkeypatch.chdir(tmp_path)
