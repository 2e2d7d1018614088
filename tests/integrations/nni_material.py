"""Digits, a small CNN as plain module and LightningModule, and evaluators of each kind, also NNI's."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rebind import LightningEvaluator, TorchEvaluator, trace

BATCH = 64
SEED_OF_TRAINERS = 42  # what TrainingArguments have where nobody says another
OPTIONS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}


def digits():
    """1,344 training images in 21 batches, and 450 to test on."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(images / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)[order]
    y = torch.tensor(labels)[order]
    return TensorDataset(x[:1344], y[:1344]), TensorDataset(x[1347:], y[1347:])


TRAINING, TEST = digits()


def loader(data, batch_size):
    # A generator of its own: a loader draws a seed at each epoch, and the algorithms draw random numbers too.
    return DataLoader(data, batch_size, generator=torch.Generator().manual_seed(0))


class Layers:
    """Two convolutions with batch norm and two linear layers, for 10 classes of 1 x 8 x 8 pixels."""

    def __init__(self, width=8, *, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(1, width, 3, padding=1)
            self.bn1, self.relu1 = nn.BatchNorm2d(width), nn.ReLU()
            self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
            self.bn2, self.relu2 = nn.BatchNorm2d(2 * width), nn.ReLU()
            self.hidden, self.relu3 = nn.Linear(8 * width, 4 * width), nn.ReLU()
            self.fc = nn.Linear(4 * width, 10)

    def forward(self, images):
        x = F.max_pool2d(self.relu1(self.bn1(self.conv1(images))), 2)
        x = F.max_pool2d(self.relu2(self.bn2(self.conv2(x))), 2)
        return self.fc(self.relu3(self.hidden(x.flatten(1))))


class Net(Layers, nn.Module):
    pass


class LitNet(Layers, pl.LightningModule):
    def training_step(self, batch):
        return loss_of(batch, self)

    def test_step(self, batch):
        images, labels = batch
        self.log("default", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), **OPTIONS)


class LitHolder(pl.LightningModule):
    """Has the network in it, so that something else can take its place."""

    training_step, test_step = LitNet.training_step, LitNet.test_step
    configure_optimizers = LitNet.configure_optimizers

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, images):
        return self.net(images)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return loader(TRAINING, BATCH)

    def test_dataloader(self):
        return loader(TEST, len(TEST))


def parts_of(batch):
    """Images and labels; a Trainer's batch has them by name."""
    return (batch["images"], batch["labels"]) if isinstance(batch, dict) else batch


def loss_of(batch, model):
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def train(  # noqa: PLR0917 - as NNI calls it
    model, optimizers, training_step, lr_schedulers=None, max_steps=None, max_epochs=None
):
    """Train for an epoch if nothing else is said. It counts the steps, as NNI's evaluator relies on it."""
    made = 0
    for _ in range(max_epochs or (1 if max_steps is None else 100)):
        for batch in loader(TRAINING, BATCH):
            model.train()
            optimizers.zero_grad()
            training_step(batch, model).backward()
            optimizers.step()
            made += 1
            if made == max_steps:
                return


@torch.no_grad()
def accuracy(model):
    model.eval()
    images, labels = TEST.tensors
    return (model(images).argmax(1) == labels).float().mean().item()


TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def native_evaluator(model):
    optimizer = trace(torch.optim.SGD)(model.parameters(), **OPTIONS)
    return TorchEvaluator(train, optimizer, training_step=loss_of, evaluating_func=accuracy)


def lightning_evaluator(model):
    return LightningEvaluator(trace(pl.Trainer)(**TRAINER), trace(Data)())


def recorded_lightning_evaluator(model):
    return LightningEvaluator(trace(pl.Trainer)(**TRAINER), trace(Data)(), model=model)


def transformers_evaluator(model):
    from trainer_kind import trainer_evaluator

    return trainer_evaluator(model)


# Each kind: the model's class, and its evaluator.
KINDS = {
    "TorchEvaluator": (Net, native_evaluator),
    "LightningEvaluator": (LitNet, lightning_evaluator),
    "LightningEvaluator, model=": (LitNet, recorded_lightning_evaluator),
    "TransformersEvaluator": (Net, transformers_evaluator),
}


def train_as_a_trainer_seeds(model, *args, **kwargs):
    """The same training from the seed that a Trainer sets, less the number that its loader draws."""
    torch.manual_seed(SEED_OF_TRAINERS)
    torch.empty((), dtype=torch.int64).random_()
    train(model, *args, **kwargs)


def nni_evaluator(model, training=train):
    """NNI's own evaluator, as the oracle."""
    import nni
    from nni.compression import TorchEvaluator as NniTorchEvaluator

    optimizer = nni.trace(torch.optim.SGD)(model.parameters(), **OPTIONS)
    return NniTorchEvaluator(training, optimizer, loss_of, evaluating_func=accuracy)
