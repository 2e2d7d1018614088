"""A `LightningEvaluator` is a value: checked, compared, shown, written and read like any other."""

import json
import threading

import pytest
import pytorch_lightning as pl
import torch
from lightning_material import QUIET, Data, Net, assert_same, by_own_trainer, evaluator_of, net
from pydantic import ValidationError
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn

import rebind
from rebind import LightningEvaluator, bind, diff, dumps, load, loads, save, trace

ALLOW = ["lightning_material", "test_lightning_values"]


def places(*args, **kwargs):
    with pytest.raises(ValidationError) as caught:
        LightningEvaluator(*args, **kwargs)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


def trainer_of(**options):
    return trace(pl.Trainer)(**{**QUIET, "logger": False, "enable_checkpointing": False, **options})


@pytest.mark.parametrize("value", [None, 3, "trainer", pl.Trainer, trace(pl.Trainer), [], {}])
def test_whatever_is_no_trainer_and_no_data_module_is_refused_at_its_place(value):
    found = places(value, value)
    assert {place.partition(".")[0] for place in found} == {"trainer", "data_module"}


def test_what_was_not_traced_is_told_how_to_trace_it():
    found = places(pl.Trainer(**QUIET, logger=False, enable_checkpointing=False), Data())
    assert "write trace(Trainer)(...)" in found["trainer"]
    assert "write trace(Data)(...)" in found["data_module"]


def test_everything_is_told_at_once():
    """A trainer that was not traced, a model that is none, and the fields after them."""
    trainer = pl.Trainer(**QUIET, logger=False, enable_checkpointing=False)
    found = places(trainer, 3, dummy_input=threading.Lock(), model=nn.Linear(1, 1), metric="")
    assert set(found) == {"trainer", "data_module", "dummy_input", "model", "metric"}
    assert "was not built by a traced call" in found["trainer"]


def test_trainer_and_data_module_are_not_taken_for_each_other():
    found = places(trace(Data)(), trainer_of())
    assert "is none" in found["trainer"]
    assert "is none" in found["data_module"]


class Locked(pl.Callback):
    def __init__(self, lock=None):
        self.lock = lock or threading.Lock()


def test_what_cannot_be_copied_or_shipped_is_told_at_its_place():
    found = places(trainer_of(callbacks=[EarlyStopping("x"), Locked()]), trace(Data)())
    assert list(found) == ["trainer.kwargs.callbacks"]
    assert "trace(Locked)(...)" in next(iter(found.values()))
    evaluator_of(callbacks=[trace(Locked)()])


def test_a_wrong_model_and_wrong_optimizers_are_told():
    assert "takes a LightningModule" in places(trainer_of(), trace(Data)(), model=nn.Linear(1, 1))["model"]
    assert "'interval'" in str(places(trainer_of(), trace(Data)(), model=net(kind=BadInterval)))
    assert places(trainer_of(), trace(Data)(), metric="") != {}


class BadInterval(Net):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        return [optimizer], [{"scheduler": scheduler, "interval": "batch"}]


def test_equal_code_gives_equal_evaluators_and_differences_are_told():
    first, second = evaluator_of(callbacks=[EarlyStopping("a")]), evaluator_of(callbacks=[EarlyStopping("a")])
    assert first == second
    assert hash(first) == hash(second)
    assert diff(first, evaluator_of(callbacks=[EarlyStopping("b")])) == [
        ("trainer.kwargs.callbacks.0.monitor", "a", "b")
    ]
    assert diff(first, evaluator_of(callbacks=[EarlyStopping("a")], max_epochs=3)) == [
        ("trainer.kwargs.max_epochs", 2, 3)
    ]


def test_it_is_shown_as_a_tree():
    shown = str(evaluator_of(model=net("dict and config"), callbacks=[trace(EarlyStopping)("val_loss")]))
    assert "Trainer(" in shown
    assert "EarlyStopping('val_loss')" in shown
    assert "SGD(6 parameters, lr=0.1, momentum=0.9)" in shown
    assert "<li>" in evaluator_of()._repr_html_()
    assert LightningEvaluator.model_json_schema()["required"] == ["trainer", "data_module"]


FORMS = {
    "own": dict,
    "recorded": lambda: {"model": net("dict and config")},
    "traced callback": lambda: {"callbacks": [trace(EarlyStopping)("val_loss", patience=9)]},
    "dummy input": lambda: {"dummy_input": torch.ones(4, 2)},
    "metric": lambda: {"metric": "val_loss"},
}


@pytest.mark.parametrize("form", FORMS)
def test_json_and_bytes_without_pickle_bring_back_the_same_evaluator(form):
    evaluator = evaluator_of(**FORMS[form]())
    assert evaluator.code_fields() == []
    context = {"allow": ALLOW}
    text = evaluator.model_dump_json()
    assert LightningEvaluator.model_validate_json(text, context=context) == evaluator
    assert LightningEvaluator.model_validate(evaluator.model_dump(), context=context) == evaluator
    assert LightningEvaluator.model_validate(json.loads(text), context=context) == evaluator
    assert loads(dumps(evaluator), allow=ALLOW) == evaluator


def test_plain_callbacks_travel_as_code(tmp_path):
    evaluator = evaluator_of(callbacks=[EarlyStopping("val_loss", patience=9)])
    assert evaluator.code_fields() == ["trainer"]
    key = rebind.SigningKey.generate("test")
    save(evaluator, tmp_path / "file", key=key)
    assert load(tmp_path / "file", key=key) == evaluator
    with pytest.raises(rebind.UntrustedPayloadError, match="trainer"):
        load(tmp_path / "file")


@pytest.mark.parametrize("form", ["optimizer", "dict and config", "manual dicts"])
def test_an_evaluator_that_was_read_trains_as_the_one_that_was_written(form):
    for evaluator in (evaluator_of(), evaluator_of(model=net(form))):
        model = net(form)
        with bind(loads(dumps(evaluator), trusted=True, allow=ALLOW), model) as binding:
            torch.manual_seed(1)
            binding.train()
        assert_same(model, by_own_trainer(form))


class Large(Net):
    def __init__(self, form="optimizer"):
        super().__init__(form)
        self.large = nn.Sequential(*[nn.Linear(320, 320) for _ in range(100)])


def test_the_evaluator_of_a_module_of_10_million_parameters_is_small_and_lets_it_go():
    import gc
    import weakref

    model = net("dict and config", kind=Large)
    assert sum(p.numel() for p in model.parameters()) > 10_000_000
    evaluator, gone = evaluator_of(model=model), weakref.ref(model)
    sizes = [len(dumps(evaluator))]
    with bind(evaluator, model) as binding:
        sizes.append(len(dumps(evaluator)))
        binding.train(max_steps=1)
        sizes.append(len(dumps(evaluator)))
    sizes.append(len(dumps(evaluator)))
    assert max(sizes) < 20_000
    del model, binding
    gc.collect()
    assert gone() is None
    assert len(dumps(evaluator)) < 20_000


def test_a_path_in_json_leads_to_parts_of_a_trainer_and_not_anywhere():
    text = evaluator_of().model_dump_json().replace("pytorch_lightning:Trainer", "torch:load")
    with pytest.raises(ValidationError, match="to have it called, allow"):
        LightningEvaluator.model_validate_json(text, context={"allow": ALLOW})
