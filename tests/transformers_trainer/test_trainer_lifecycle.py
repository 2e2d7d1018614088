"""Each training has a Trainer of its own, which leaves nothing on the model or in the arguments."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
import trainer_material as material
from transformers import TrainerCallback, TrainingArguments

import rebind
from rebind import TrainingError, bind, dumps, loads, trace
from rebind.testing import assert_pristine


class Counting(TrainerCallback):
    """Counts the steps that it has seen since it was made."""

    told: list[int] = []  # noqa: RUF012 - of all copies

    def __init__(self):
        self.steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1

    def on_train_end(self, args, state, control, **kwargs):
        self.told.append(self.steps)


@pytest.mark.parametrize("is_traced", [False, True])
def test_callbacks_begin_anew_with_each_training(is_traced):
    """Also those that hold state; the user's own object is left alone."""
    Counting.told.clear()
    callback = trace(Counting)() if is_traced else Counting()
    with bind(material.evaluator_of(given={"callbacks": [callback]}), material.net(seed=3)) as binding:
        for _ in range(3):
            binding.train(max_steps=2)
    assert Counting.told == [2, 2, 2]
    assert callback.steps == 0


class OwnArguments(TrainingArguments):
    """Told apart from what a call of its class gives."""


def changed_arguments():
    given = OwnArguments(**material.QUIET, max_steps=6)
    given.of_my_own = "x"
    return given


def whole(given):
    return {name: value for name, value in vars(given).items() if name != "distributed_state"}


@pytest.mark.parametrize("make", [material.arguments, material.traced_arguments, changed_arguments])
@pytest.mark.parametrize("fails", [False, True])
def test_the_users_arguments_are_never_changed(make, fails):
    """Nor does what the user changes in them later reach the evaluator."""
    given, model = make(), material.net(seed=3)
    trainer = trace(material.Trainer)(
        material.net(),
        given,
        train_dataset=material.Rows(),
        eval_dataset=material.Rows(8, seed=1),
        compute_metrics=material.accuracy,
    )
    before = copy.deepcopy(whole(given))
    evaluator = rebind.TransformersEvaluator(trainer)

    def fail():
        raise RuntimeError("on purpose")

    with bind(evaluator, model) as binding:
        binding.evaluate()
        binding.train(max_steps=2)
        binding.train(max_epochs=1)
        if fails:
            binding.before_step(fail)
            with pytest.raises(RuntimeError, match="on purpose"):
                binding.train(max_epochs=3)
    assert whole(given) == before
    given.max_steps = 1
    with bind(evaluator, model) as binding:
        binding.train()
        assert binding.steps == 6


def test_no_model_is_held_and_none_is_written():
    """The recorded model can go, with its optimizer; no file has its bytes, before and after use."""
    model = material.net(64, seed=3)
    needle = model.fc1.weight.detach().numpy().tobytes()
    evaluator = material.evaluator_of("groups", model=model)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
    written = dumps(evaluator)
    other = material.net(64, seed=3)
    assert other.fc1.weight.detach().numpy().tobytes() == needle
    with bind(evaluator, other) as binding:
        binding.train(max_steps=1)
        assert dumps(evaluator) == written
    assert needle not in written
    assert loads(written, trusted=True) == evaluator


def test_bindings_of_one_evaluator_live_side_by_side():
    """Trained in turns, each as if alone."""
    evaluator = material.evaluator_of("optimizer and scheduler")
    models = [material.net(seed=3), material.net(5, seed=4)]
    alone = copy.deepcopy(models)
    for model in alone:
        with bind(evaluator, model) as binding:
            binding.train(max_steps=2)
            binding.train(max_steps=3)
    with bind(evaluator, models[0]) as first, bind(evaluator, models[1]) as second:
        for steps in (2, 3):
            first.train(max_steps=steps)
            second.train(max_steps=steps)
    for model, expected in zip(models, alone, strict=True):
        material.assert_same(model, expected)


@pytest.mark.parametrize(
    "options", [{}, {"activation_checkpointing": True}, {"neftune_noise_alpha": 5.0}, {"bf16": True}]
)
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_on_a_model_of_transformers(options, fails):
    """What checkpointing, noise and mixed precision write onto it is gone, and it trained as by hand."""
    model = material.bert()
    model.config.problem_type = "single_label_classification"  # its own forward notes it at the first batch
    expected, _ = material.by_own_trainer(model, data=material.Tokens(), **options)
    evaluator = material.evaluator_of(
        model=material.bert(), data=material.Tokens(), held_out=material.Tokens(4), **options
    )
    before = set(vars(model)), vars(model.config).copy()

    def fail():
        raise RuntimeError("on purpose")

    with assert_pristine(model), bind(evaluator, model) as binding:
        if fails:
            binding.after_step(fail)
            with pytest.raises(RuntimeError, match="on purpose"):
                binding.train()
        else:
            binding.train()
    assert (set(vars(model)), vars(model.config)) == before
    assert not any(module._forward_hooks for module in model.modules())
    if not fails:
        material.assert_same(model, expected)


@pytest.mark.filterwarnings("ignore")  # of torch's own parts, which it imports when it compiles
def test_nothing_of_torchs_compiler_stays_on_a_model():
    """Which marks what it compiles; it trained as by hand."""
    options = {"torch_compile": True, "torch_compile_backend": "eager"}
    model = material.net(seed=3)
    expected, _ = material.by_own_trainer(model, "optimizer", **options)
    with assert_pristine(model), bind(material.evaluator_of("optimizer", **options), model) as binding:
        binding.train()
    material.assert_same(model, expected)


@pytest.mark.parametrize("place", ["loss", "before", "model"])
def test_an_interruption_leaves_the_model_as_it_was_and_the_binding_trains_on(place):
    """A KeyboardInterrupt at any place, with mixed precision and an evaluation after each step."""
    options = {"bf16": True, "eval_strategy": "steps", "eval_steps": 1, "gradient_accumulation_steps": 2}
    model, evaluator = material.net(seed=3), material.evaluator_of("optimizer", **options)
    written = rebind.dumps(evaluator)

    def interrupt(*_):
        if binding.steps == 2:
            raise KeyboardInterrupt

    with assert_pristine(model), bind(evaluator, model) as binding:
        put = {
            "loss": lambda: binding.patch_loss(lambda loss: interrupt() or loss),
            "before": lambda: binding.before_step(interrupt),
            "model": lambda: binding.forward_hook("fc2", interrupt),
        }
        with put[place](), pytest.raises(KeyboardInterrupt):
            binding.train()
        assert binding.steps == 2
        assert "forward" not in vars(model)
        binding.train(max_steps=2)
        assert binding.steps == 4
    assert rebind.dumps(evaluator) == written


def test_checkpoints_are_written_only_where_they_are_asked_for(tmp_path):
    """The default of transformers would write one at the end of each training."""
    quiet = {name: value for name, value in material.QUIET.items() if name != "save_strategy"}
    for asked, found in (({}, 0), ({"save_strategy": "steps", "save_steps": 3}, 2)):
        folder = tmp_path / str(found)
        given = TrainingArguments(**{**quiet, "output_dir": str(folder), "max_steps": 6}, **asked)
        trainer = trace(material.Trainer)(material.net(), given, train_dataset=material.Rows())
        with bind(rebind.TransformersEvaluator(trainer), material.net(seed=3)) as binding:
            binding.train()
        assert len(list(folder.glob("checkpoint*"))) == found


def test_a_trainer_without_training_data_says_so():
    evaluator = rebind.TransformersEvaluator(trace(material.Trainer)(material.net(), material.arguments()))
    model = material.net(seed=3)
    with assert_pristine(model), bind(evaluator, model) as binding:
        with pytest.raises(TrainingError, match="no training data: give it train_dataset="):
            binding.train()


def test_a_model_with_nothing_to_train_says_so(caplog):
    model = material.net(seed=3).requires_grad_(requires_grad=False)
    with bind(material.evaluator_of(), model) as binding:
        assert "nothing to train" in caplog.text
        with pytest.raises(TrainingError, match="nothing to train"):
            binding.train()


class OwnStep(material.Trainer):
    """Computes its loss where no patch can be."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = model(**inputs)["loss"]
        self.accelerator.backward(loss)
        return loss.detach()


def test_a_training_step_that_a_loss_patch_cannot_reach_is_told():
    """Without a patch it trains as it is; with one, no step is made without it in silence."""
    model = material.net(seed=3)
    evaluator = material.evaluator_of(kind=OwnStep)
    expected, _ = material.by_own_trainer(model, kind=OwnStep)
    with bind(evaluator, model) as binding:
        with binding.patch_loss(lambda loss: 2 * loss):
            with pytest.raises(
                TrainingError, match=r"training_step of OwnStep did not call self\.compute_loss"
            ):
                binding.train()
        assert binding.steps == 0
    model = material.net(seed=3)
    with bind(evaluator, model) as binding:
        binding.train()
    material.assert_same(model, expected)


def test_a_model_that_lost_channels_goes_on_with_the_momentum_of_those_that_are_left():
    """`rebind` after surgery, with a recorded optimizer: the state of the kept rows, to the bit."""
    model = material.net(seed=3)
    with bind(material.evaluator_of("optimizer"), model) as binding:
        binding.train(max_steps=3)
        momentum = binding.optimizers[0].state[model.fc1.weight]["momentum_buffer"].clone()
        narrow, keep = material.net(5, seed=4), torch.tensor([0, 2, 3, 5, 7])
        kept = {name: {0: keep} for name in ("fc1.weight", "fc1.bias", "norm.weight", "norm.bias")}
        binding.rebind(narrow, state="slice", kept={**kept, "fc2.weight": {1: keep}})
        state = binding.optimizers[0].state[narrow.fc1.weight]
        assert torch.equal(state["momentum_buffer"], momentum[keep])
        binding.train(max_steps=2)
        assert binding.steps == 5
