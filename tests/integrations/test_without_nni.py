"""What is there before NNI is."""

import subprocess
import sys

import pytest
import torch

from rebind import TorchEvaluator, trace
from rebind.runtime.integrations.nni import as_nni


def train(model, optimizers, criterion): ...


def test_a_missing_nni_is_told_with_what_to_install(monkeypatch):
    """Not a bare ModuleNotFoundError from the depths."""
    model = torch.nn.Linear(2, 1)
    optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    evaluator = TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss)
    monkeypatch.setitem(sys.modules, "nni", None)
    monkeypatch.setitem(sys.modules, "nni.compression", None)
    with pytest.raises(ImportError, match=r"as_nni needs NNI 3.*pip install 'rebind\[nni\]'"):
        as_nni(evaluator)


def test_nni_is_not_imported_before_it_is_used():
    """Importing the function costs nothing of NNI."""
    script = (
        "import sys; from rebind.runtime.integrations.nni import as_nni; "
        "assert 'nni' not in sys.modules, sys.modules['nni']"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
