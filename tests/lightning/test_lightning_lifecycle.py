"""A fresh Trainer for each fit, files only where they were asked for, and a module left as it was."""

import copy
import logging
import os
import signal

import pytest
import pytorch_lightning as pl
import torch
from lightning_material import Bare, Data, Net, assert_same, by_own_trainer, evaluator_of, net
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from rebind import BindError, MissingParametersError, TrainingError, bind, trace
from rebind.testing import assert_pristine


def files_under(path):
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_is_written_unless_the_trainer_says_so(here):
    with bind(evaluator_of(callbacks=[LearningRateMonitor()], default_root_dir=str(here)), net()) as binding:
        binding.train()
        binding.evaluate()
        assert binding.dummy_input is not None
    assert files_under(here) == []


def test_a_logger_that_was_passed_writes_and_has_a_version_for_each_fit(here):
    logger = CSVLogger(str(here), name="runs")
    with bind(evaluator_of(logger=logger, log_every_n_steps=1), net()) as binding:
        binding.train(max_steps=2)
        binding.train(max_steps=2)
    assert {path.split("/")[1] for path in files_under(here) if "/" in path} == {"version_0", "version_1"}


@pytest.mark.parametrize("traced", [False, True])
def test_checkpoints_are_written_where_they_were_asked_for_and_start_anew(here, traced):
    """`save_top_k=1` keeps the best of one fit, and does not compare it with those of the fit before."""
    make = trace(ModelCheckpoint) if traced else ModelCheckpoint
    callback = make(dirpath=str(here / "kept"), monitor="val_loss", filename="{epoch}")
    with bind(evaluator_of(callbacks=[callback]), net()) as binding:
        binding.train(max_epochs=1)
        assert files_under(here) == ["kept", "kept/epoch=0.ckpt"]
        binding.train(max_epochs=1)
        assert len(files_under(here)) == 3
    assert callback.best_model_path == ""


def test_a_learning_rate_monitor_starts_anew(here):
    monitor = LearningRateMonitor(logging_interval="epoch")
    with bind(evaluator_of(callbacks=monitor), net("dict and config")) as binding:
        binding.train()
        binding.train()
    assert not getattr(monitor, "lrs", None)


class Counting(pl.Callback):
    """Keeps a count, and writes down what it counted."""

    def __init__(self, told):
        self.told, self.count = told, 0

    def on_train_batch_end(self, *_):
        self.count += 1

    def on_train_end(self, *_):
        TOLD.append((self.told, self.count))


TOLD = []


def test_state_does_not_leak_from_fit_to_fit_whether_or_not_a_callback_is_traced():
    TOLD.clear()
    plain, traced = Counting(["plain"]), trace(Counting)("traced")
    with bind(evaluator_of(callbacks=[plain, traced]), net()) as binding:
        binding.train(max_steps=3)
        binding.train(max_steps=5)
    assert TOLD == [(["plain"], 3), ("traced", 3), (["plain"], 5), ("traced", 5)]
    assert plain.count == traced.count == 0


def test_an_object_in_two_places_is_one_object_in_each_fit():
    TOLD.clear()
    shared = Counting("shared")
    with bind(evaluator_of(callbacks=[shared, Asking(shared)]), net()) as binding:
        binding.train(max_steps=3)
    assert TOLD == [("shared", 3), ("asked", 3)]


class Asking(pl.Callback):
    def __init__(self, other):
        self.other = other

    def on_train_end(self, *_):
        TOLD.append(("asked", self.other.count))


@pytest.mark.parametrize("traced", [False, True])
def test_strategies_and_what_the_trainer_does_to_them_stay_out_of_the_record(traced):
    make = trace(SingleDeviceStrategy) if traced else SingleDeviceStrategy
    model = net()
    with bind(evaluator_of(strategy=make(device="cpu"), accelerator="auto"), model) as binding:
        torch.manual_seed(1)
        binding.train(max_epochs=1)
        binding.train(max_epochs=1)
        assert binding.steps == 16


def test_the_users_own_trainer_may_be_used_before_the_evaluator_is_created_from_it():
    """What its callbacks went through since is not in the record."""
    TOLD.clear()
    from lightning_material import QUIET

    from rebind import LightningEvaluator

    trainer = trace(pl.Trainer)(
        **QUIET, max_epochs=1, callbacks=[Counting("own")], logger=False, enable_checkpointing=False
    )
    trainer.fit(net(), datamodule=Data())
    evaluator = LightningEvaluator(trainer, trace(Data)())
    with bind(evaluator, net()) as binding:
        binding.train(max_steps=2)
    assert TOLD == [("own", 8), ("own", 2)]


@pytest.mark.parametrize("form", ["optimizer", "dict and config", "manual several"])
def test_a_module_is_given_back_as_it_was(form):
    model = net(form)
    model.drop.eval()
    model.fc2.bias.requires_grad_(False)
    with assert_pristine(model), bind(evaluator_of(), model) as binding:
        binding.train(max_steps=3)
        binding.evaluate()
        assert binding.dummy_input is not None
        assert model._trainer is None


class Failing(Net):
    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            raise ZeroDivisionError
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        raise ZeroDivisionError


def test_errors_of_the_users_code_come_through_and_leave_nothing():
    model = net(kind=Failing)
    with assert_pristine(model), bind(evaluator_of(num_sanity_val_steps=0), model) as binding:
        with pytest.raises(ZeroDivisionError):
            binding.train()
        assert binding.steps == 2
        with pytest.raises(ZeroDivisionError):
            binding.evaluate()
        assert model._trainer is None


def test_ctrl_c_in_a_fit_is_a_keyboard_interrupt():
    handler = signal.getsignal(signal.SIGINT)
    model = net()
    with assert_pristine(model), bind(evaluator_of(), model) as binding:
        binding.after_step(lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            binding.train()
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_module_of_another_kind_is_refused():
    with pytest.raises(BindError, match="put the model into a LightningModule"):
        bind(evaluator_of(), nn.Linear(2, 1))


class Wrapper(pl.LightningModule):
    """What a compression tool makes of a module: another class, with the module inside."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.mse_loss(self(x), y)


def test_recorded_optimizers_go_onto_a_module_of_another_class():
    evaluator = evaluator_of(model=net("dict and config"), limit_val_batches=0)
    wrapper = Wrapper(net("dict and config"))
    with bind(evaluator, wrapper) as binding:
        assert set(binding.report.renamed.values()) <= {f"module.{n}" for n, _ in net().named_parameters()}
        torch.manual_seed(1)
        binding.train()
    assert_same(wrapper.module, by_own_trainer("dict and config", limit_val_batches=0))
    with pytest.raises(BindError, match="configure_optimizers of Wrapper"):
        bind(evaluator_of(), wrapper)


def test_a_missing_parameter_is_told():
    smaller = net(kind=Bare)
    del smaller.norm
    with pytest.raises(MissingParametersError):
        bind(evaluator_of(model=net()), smaller)
    with bind(evaluator_of(model=net()), smaller, missing="ignore") as binding:
        assert binding.report.missing == ("norm.weight", "norm.bias")


class Outside(Net):
    """As in NNI's documentation: `model.parameters()`, whatever `model` may be by then."""

    def configure_optimizers(self):
        return torch.optim.SGD(OTHER.parameters(), lr=0.1)


OTHER = nn.Linear(1, 1)


def test_an_optimizer_for_parameters_from_outside_is_refused():
    with pytest.raises(BindError, match="optimizes no parameter of the module"):
        bind(evaluator_of(), net(kind=Outside))


class Broken(Net):
    def configure_optimizers(self):
        raise ZeroDivisionError("broken")


class Strange(Net):
    def configure_optimizers(self):
        return {"optimiser": None}


@pytest.mark.parametrize(("kind", "told"), [(Broken, "broken"), (Strange, "returned")])
def test_a_failed_bind_leaves_a_module_as_it_was(kind, told):
    model = net(kind=kind)
    with assert_pristine(model), pytest.raises(BindError, match=told):
        bind(evaluator_of(), model)
    assert model._trainer is None


class AsksTheTrainer(Net):
    """As the schedule for a whole training is usually written."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        total = self.trainer.estimated_stepping_batches
        return [optimizer], [
            {"scheduler": torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total), **STEP}
        ]


STEP = {"interval": "step"}


def test_configure_optimizers_may_ask_the_trainer_how_long_the_training_will_be():
    model = net(kind=AsksTheTrainer)
    with assert_pristine(model), bind(evaluator_of(), model) as binding:
        assert binding.lr_schedulers[0].total_steps == 16
        torch.manual_seed(1)
        binding.train()
    assert_same(model, by_own_trainer(kind=AsksTheTrainer))


class MakesLayers(Net):
    def setup(self, stage):
        self.fc2 = nn.Linear(4, 1)


def test_a_module_that_makes_new_layers_for_each_fit_is_not_trained_in_part():
    with bind(evaluator_of(), net(kind=MakesLayers)) as binding:
        with pytest.raises(TrainingError, match="make each layer once"):
            binding.train()


def test_a_module_without_optimizers_is_told_of(caplog):
    with caplog.at_level(logging.WARNING, "rebind"), bind(evaluator_of(), net("none")) as binding:
        assert binding.optimizers == []
    assert "returns no optimizer" in caplog.text


def test_another_model_takes_over_in_a_binding_with_the_state_of_the_first():
    """Half by the module's own code, and half by carrying."""
    model = net("dict and config")
    with bind(evaluator_of(), model) as binding:
        binding.train(max_steps=3)
        successor = copy.deepcopy(model)
        momentum = binding.optimizers[0].state[model.fc1.weight]["momentum_buffer"].clone()
        rate = binding.optimizers[0].param_groups[0]["lr"]
        binding.rebind(successor, state="carry")
        assert torch.equal(binding.optimizers[0].state[successor.fc1.weight]["momentum_buffer"], momentum)
        assert binding.optimizers[0].param_groups[0]["lr"] == rate
        binding.train(max_steps=1)
        assert model._trainer is successor._trainer is None
        with pytest.raises(BindError, match="LightningModule"):
            binding.rebind(nn.Linear(2, 1))
        assert binding.model is successor


def test_the_state_of_a_binding_is_saved_and_goes_on_elsewhere():
    model = net("dict and config")
    with bind(evaluator_of(), model) as binding:
        binding.train(max_epochs=1)
        state = binding.state_dict()
        binding.train(max_epochs=1)
        expected = copy.deepcopy(model.state_dict())
    other = net("dict and config", seed=9)
    with bind(evaluator_of(), other) as binding:
        binding.load_state_dict(state)
        binding.train(max_epochs=1)
        assert binding.steps == 16
    assert all(torch.equal(expected[name], value) for name, value in other.state_dict().items())


def test_a_strategy_that_trains_in_copies_of_the_process_is_refused():
    evaluator = evaluator_of(strategy=trace(DDPStrategy)(start_method="spawn"), devices=2)
    model = net()
    with bind(evaluator, model) as binding, pytest.raises(TrainingError, match="strategy='ddp'"):
        binding.train()


class Unlogged(Net):
    """Lightning's `self.log` cannot be compiled."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.mse_loss(self(x), y)

    validation_step = pl.LightningModule.validation_step


@pytest.mark.parametrize("recorded", [False, True])
def test_a_compiled_module_trains_and_is_given_back_as_it_was(recorded):
    """The trainer puts compiled methods onto the module, and they go with it."""
    model = net("dict and config", kind=Unlogged)
    compiled = torch.compile(model, backend="eager")
    evaluator = evaluator_of(model=net("dict and config") if recorded else None)
    with assert_pristine(model), bind(evaluator, compiled) as binding:
        assert len(binding.report.matched) == 6
        torch.manual_seed(1)
        binding.train(max_steps=5)
        assert binding.steps == 5
        assert binding.dummy_input.shape == (4, 2)
    assert model._compiler_ctx is None
    assert_same(model, by_own_trainer("dict and config", kind=Unlogged, max_epochs=-1, max_steps=5))


def test_a_strategy_that_shards_parameters_is_refused():
    evaluator = evaluator_of(strategy=trace(pl.strategies.ModelParallelStrategy)())
    with bind(evaluator, net()) as binding, pytest.raises(TrainingError, match="shards the parameters"):
        binding.train()
