"""Lightning's advice on settings that tests choose with open eyes is no error here."""

import pytest
import torch

_ADVICE = (
    "The '.*_dataloader' does not have many workers",
    "The number of training batches .* is smaller than the logging interval",
    "`LightningModule.configure_optimizers` returned `None`",
    "GPU available but not used",
    "You passed in a `val_dataloader` but have no `validation_step`",
    "Starting from v1.9.0, `tensorboardX` has been removed",
    "Checkpoint directory .* exists and is not empty",
    ".*in eval mode at the start of training",
    "`training_step` returned `None`",
    "Trying to infer the `batch_size`",
    "You are trying to `self.log\\(\\)` but",
    "The lr scheduler dict contains the key",
    "The `.*` .*treespec",
    "`isinstance\\(treespec",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/lightning" in str(item.path):
            for advice in _ADVICE:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{advice}"))


@pytest.fixture(autouse=True)
def one_thread():
    """As in a worker: sums of another number of threads differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
