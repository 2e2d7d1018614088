"""A small LightningModule, every form of `configure_optimizers`, and the user's own Trainer as oracle."""

import lightning.pytorch as unified
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from rebind import LightningEvaluator, trace

QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
mse = nn.functional.mse_loss


def data_set(count=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True))


class DataMixin:
    def __init__(self, batch_size=4, count=32, shuffle=True):
        super().__init__()
        self.batch_size, self.count, self.shuffle = batch_size, count, shuffle

    def setup(self, stage):
        self.training_set, self.held_out = data_set(self.count), data_set(8, seed=1)

    def train_dataloader(self):
        return DataLoader(self.training_set, self.batch_size, shuffle=self.shuffle)

    def val_dataloader(self):
        return DataLoader(self.held_out, self.batch_size)


class Data(DataMixin, pl.LightningDataModule):
    """Prepared by `setup`, as Lightning's own examples are."""


class UnifiedData(DataMixin, unified.LightningDataModule):
    pass


class TestedData(Data):
    def test_dataloader(self):
        return DataLoader(self.held_out, self.batch_size)


class NetMixin:
    """With batch norm and dropout: whatever runs it once too often, or in the wrong mode, is seen."""

    def __init__(self, form="optimizer"):
        super().__init__()
        self.form = form
        self.fc1 = nn.Linear(2, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.25)
        self.fc2 = nn.Linear(4, 1)
        self.automatic_optimization = not form.startswith("manual")

    def forward(self, x):
        return self.fc2(self.drop(torch.relu(self.norm(self.fc1(x)))))

    def training_step(self, batch, batch_idx):
        if not self.automatic_optimization:
            return self.manual_step(batch)
        x, y = batch
        loss = mse(self(x), y)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def manual_step(self, batch):
        x, y = batch
        listed = self.optimizers()
        for optimizer in listed if isinstance(listed, list) else [listed]:
            optimizer.zero_grad()
            self.manual_backward(mse(self(x), y))
            optimizer.step()
        schedulers = self.lr_schedulers()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers] * bool(schedulers):
            scheduler.step()

    def validation_step(self, batch, batch_idx):
        x, y = batch
        loss = mse(self(x), y)
        self.log("val_loss", loss)
        self.log("default", -loss)

    def configure_optimizers(self):
        return FORMS[self.form](self)


class Net(NetMixin, pl.LightningModule):
    pass


class Bare(Net):
    """A module that could build no optimizers."""

    configure_optimizers = pl.LightningModule.configure_optimizers


class UnifiedNet(NetMixin, unified.LightningModule):
    pass


class TestedNet(Net):
    __test__ = False

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("default", 1.0)
        self.log("test_loss", mse(self(x), y))


TestedData.__test__ = False


def adam(net):
    return Adam(net.parameters(), lr=0.01)


def traced_adam(net):
    return trace(Adam)(net.parameters(), lr=0.01)


def with_scheduler(net):
    optimizer = trace(SGD)(net.parameters(), lr=0.1, momentum=0.9)
    return optimizer, trace(StepLR)(optimizer, 1, 0.5)


def two(net):
    return [adam_of(net.fc1), AdamW([*net.norm.parameters(), *net.fc2.parameters()], lr=0.02)]


def adam_of(module):
    return Adam(module.parameters(), lr=0.01)


def config(net, **options):
    optimizer, scheduler = with_scheduler(net)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **options}}


def plateau(net):
    optimizer = SGD(net.parameters(), lr=0.1)
    return optimizer, ReduceLROnPlateau(optimizer, factor=0.5, patience=0)


def one_cycle(net):
    optimizer = trace(SGD)(net.parameters(), lr=0.1, momentum=0.9)
    return optimizer, trace(OneCycleLR)(optimizer, max_lr=0.2, total_steps=64)


def pair(net, **options):
    optimizer, scheduler = with_scheduler(net)
    return [optimizer], [{"scheduler": scheduler, **options} if options else scheduler]


def monitored(net, inside):
    optimizer, scheduler = plateau(net)
    if inside:
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}
    return {"optimizer": optimizer, "lr_scheduler": scheduler, "monitor": "val_loss"}


def cycled(net):
    optimizer, scheduler = one_cycle(net)
    return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def manual_pair(net):
    optimizers = two(net)
    return optimizers, [ExponentialLR(optimizers[0], 0.9), CosineAnnealingLR(optimizers[1], 8)]


def manual_dicts(net):
    optimizers = two(net)
    return [
        {"optimizer": optimizers[0], "lr_scheduler": ExponentialLR(optimizers[0], 0.9)},
        {"optimizer": optimizers[1]},
    ]


# What Lightning itself takes.
FORMS = {
    "none": lambda net: None,
    "optimizer": adam,
    "traced": traced_adam,
    "dict": lambda net: {"optimizer": adam(net)},
    "dict and scheduler": lambda net: dict(
        zip(("optimizer", "lr_scheduler"), with_scheduler(net), strict=True)
    ),
    "dict and config": lambda net: config(net, interval="step", frequency=3),
    "dict and monitor": lambda net: monitored(net, inside=False),
    "config with monitor": lambda net: monitored(net, inside=True),
    "list": lambda net: [adam(net)],
    "tuple": lambda net: (adam(net),),
    "list of a dict": lambda net: [config(net, interval="epoch", frequency=2)],
    "two lists": pair,
    "two lists with a config": lambda net: pair(net, interval="step"),
    "one cycle": cycled,
    "optimizers and one scheduler": lambda net: ([(pair_ := with_scheduler(net))[0]], pair_[1]),
    "manual one": adam,
    "manual several": two,
    "manual two lists": manual_pair,
    "manual dicts": manual_dicts,
    "optimizer, scheduler": with_scheduler,
    "dict with None": lambda net: {"optimizer": adam(net), "lr_scheduler": None},
    "empty": lambda net: [],
}
# What Lightning does not take and NNI's documentation has; with what Lightning takes instead.
LENIENT = {
    "optimizer, scheduler": "two lists",
    "dict with None": "optimizer",
    "empty": "none",
}
LIGHTNINGS = [form for form in FORMS if form not in LENIENT]


def net(form="optimizer", seed=0, kind=Net):
    torch.manual_seed(seed)
    return kind(form)


def evaluator_of(*, model=None, data=Data, dummy_input=None, metric="default", pack=pl, **options):
    trainer = trace(pack.Trainer)(**{**QUIET, "max_epochs": 2, **options})
    return LightningEvaluator(trainer, trace(data)(), dummy_input, model=model, metric=metric)


def by_own_trainer(form="optimizer", *, kind=Net, data=None, **options):
    """The user's own code: a Trainer, a module, a fit."""
    model = net(form, kind=kind)
    given = {**QUIET, "max_epochs": 2, "logger": False, "enable_checkpointing": False, **options}
    trainer = pl.Trainer(**given)
    torch.manual_seed(1)
    trainer.fit(model, datamodule=data or Data())
    return model


def assert_same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
