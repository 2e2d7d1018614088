"""What NNI's compressors may rely on, call by call."""

import pickle

import pytest
import torch
from nni_algorithms import CONVOLUTIONS, lsq, taylor
from nni_material import (
    BATCH,
    KINDS,
    OPTIONS,
    TEST,
    TRAINING,
    Net,
    loader,
    loss_of,
    native_evaluator,
    parts_of,
    train,
)

import rebind
from rebind.runtime.integrations.nni import as_nni

pytestmark = pytest.mark.integrations

cross_entropy = torch.nn.functional.cross_entropy


@pytest.fixture(params=KINDS)
def bound(request):
    """Each kind of evaluator on a fresh model, and the model."""
    module, make = KINDS[request.param]
    model = module()
    evaluator = as_nni(make(model))
    evaluator.bind_model(model)
    yield evaluator, model
    evaluator.unbind_model()


def test_it_is_nnis_own_kind_of_evaluator_and_truthy():
    """A compressor asks for exactly this."""
    from nni.compression.utils.evaluator import Evaluator

    evaluator = as_nni(native_evaluator(Net()))
    assert isinstance(evaluator, Evaluator)
    assert evaluator
    assert not evaluator._initialization_complete


def test_what_is_no_evaluator_is_refused():
    """The mistake is told where it is made."""
    with pytest.raises(rebind.BindError, match="evaluator first, not Net"):
        as_nni(Net())


def test_step_patches_nest_and_lists_run_in_their_order(bound):
    """before2 before1 step after1 after2, as in NNI; the weights tell where the step is."""
    evaluator, model = bound
    said = []

    def say(word):
        return lambda: said.append((word, model.fc.weight.detach().clone()))

    evaluator.patch_optimizer_step([say("before1a"), say("before1b")], [say("after1a"), say("after1b")])
    evaluator.patch_optimizer_step([say("before2")], [say("after2")])
    evaluator.train(2, None)
    order = ["before2", "before1a", "before1b", "after1a", "after1b", "after2"]
    assert [word for word, _ in said] == order * 2
    weights = [weight for _, weight in said]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[2], weights[3])
    assert torch.equal(weights[3], weights[5])
    evaluator.revert_optimizer_step()
    evaluator.train(1, None)
    assert len(said) == 12


def test_tasks_before_a_step_see_its_gradients(bound):
    """Of this batch, also under Lightning, where NNI's run before there are any."""
    evaluator, model = bound
    seen = []
    evaluator.patch_optimizer_step([lambda: seen.append(model.fc.weight.grad.clone())], [])
    evaluator.train(1, None)
    fresh = type(model)()
    loss_of(next(iter(loader(TRAINING, BATCH))), fresh).backward()
    assert torch.equal(seen[0], fresh.fc.weight.grad)


def test_loss_patches_get_loss_and_batch_and_nest(bound):
    """The last one is outermost, and gets what the one below returned."""
    evaluator, _ = bound
    seen = []

    def first(loss, batch):
        seen.append(("first", loss.item(), [tuple(part.shape) for part in parts_of(batch)]))
        return loss * 2

    def second(loss, batch, *more, **options):
        assert (more, options) == ((), {})
        seen.append(("second", loss.item(), [tuple(part.shape) for part in parts_of(batch)]))
        return loss

    evaluator.patch_loss(first)
    evaluator.patch_loss(second)
    evaluator.train(1, None)
    shapes = [(BATCH, 1, 8, 8), (BATCH,)]
    assert [(name, parts) for name, _, parts in seen] == [("first", shapes), ("second", shapes)]
    assert seen[1][1] == pytest.approx(2 * seen[0][1])
    evaluator.revert_loss()
    evaluator.train(1, None)
    assert len(seen) == 2


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook")  # which NNI's BackwardHook does
def test_nnis_hooks_collect_while_they_are_registered(bound):
    """They register, buffer and remove by themselves; the evaluator keeps the list."""
    from nni.compression.utils import BackwardHook, ForwardHook, TensorHook

    evaluator, model = bound

    def keep(buffer):
        return lambda *values: buffer.append(values[-1])

    hooks = [
        TensorHook(model.fc.weight, "fc.weight", keep),
        ForwardHook(model.conv2, "conv2", keep),
        BackwardHook(model.fc, "fc", keep),
    ]
    evaluator.register_hooks(hooks)
    assert evaluator.get_all_hooks() == hooks
    evaluator.train(3, None)
    assert [len(hook.buffer) for hook in hooks] == [3, 3, 3]
    evaluator.remove_all_hooks()
    assert [hook.handle for hook in hooks] == [None, None, None]
    assert evaluator.get_all_hooks() == []


@pytest.mark.parametrize("limits", [(7, None), (None, 2), (7, 2)])
def test_limits_come_by_position_and_none_is_no_limit(bound, limits):
    """Steps, epochs of 21 batches, or whichever ends first."""
    evaluator, _ = bound
    steps = []
    evaluator.patch_optimizer_step([], [lambda: steps.append(1)])
    evaluator.train(*limits)
    assert len(steps) == min(limits[0] or 42, (limits[1] or 2) * 21)


def test_finetuning_goes_on_for_as_long_as_the_loop_wants_to(bound):
    """Without limits: here, one epoch."""
    evaluator, _ = bound
    steps = []
    evaluator.patch_optimizer_step([], [lambda: steps.append(1)])
    evaluator.finetune()
    assert len(steps) == 21


def test_an_evaluation_is_a_score_or_a_score_with_more(bound):
    """As NNI's own evaluators give it."""
    evaluator, _ = bound
    result = evaluator.evaluate()
    assert 0 <= (result[0] if isinstance(result, tuple) else result) <= 1


def test_without_an_evaluating_function_nni_gets_none(caplog):
    """Post-training quantization evaluates only to see more data."""
    model = Net()
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), **OPTIONS)
    evaluator = as_nni(rebind.TorchEvaluator(train, optimizer, training_step=loss_of))
    evaluator.bind_model(model)
    assert evaluator.evaluate() is None
    assert "evaluating_func" in caplog.text


def test_the_example_input_is_there_bound_or_not():
    """Whoever traces the model asks for it."""
    model = Net()
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), **OPTIONS)
    example = torch.zeros(1, 1, 8, 8)
    evaluator = as_nni(rebind.TorchEvaluator(train, optimizer, cross_entropy, dummy_input=example))
    assert torch.equal(evaluator.get_dummy_input(), example)
    evaluator.bind_model(model)
    assert torch.equal(evaluator.get_dummy_input(), example)


def test_unbinding_twice_and_binding_over_another_model_are_fine(bound, caplog):
    """NNI's compressors rely on neither, and its own evaluators tolerate both."""
    evaluator, model = bound
    other = type(model)()
    evaluator.patch_optimizer_step([lambda: pytest.fail("of the model before")], [])
    evaluator.bind_model(other)
    assert "bound already" in caplog.text
    assert evaluator.model is other
    evaluator.train(1, None)
    evaluator.unbind_model()
    evaluator.unbind_model()
    assert evaluator.model is None


@pytest.mark.parametrize("call", ["train", "evaluate", "finetune"])
def test_what_needs_a_model_says_so(call):
    """Instead of an assertion without words."""
    with pytest.raises(rebind.BindError, match="no model is bound; call bind_model"):
        getattr(as_nni(native_evaluator(Net())), call)()


def test_a_bound_evaluator_is_pickled_without_its_model():
    """The copy is unbound, and compresses another model."""
    model = Net()
    evaluator = as_nni(native_evaluator(model))
    evaluator.bind_model(model)
    data = pickle.dumps(evaluator)
    assert len(data) < 10_000
    copy = pickle.loads(data)
    assert copy.model is None
    assert evaluator.model is model
    _, masks = taylor(Net(), copy).compress()
    assert float(masks["conv1"]["weight"].mean()) == 0.5


def test_a_criterion_serves_pruners_and_is_refused_where_the_batch_is_needed():
    """A criterion gets no batch; a teacher that gets something else in its place would learn nonsense."""
    model = Net()
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), **OPTIONS)

    def loop(model, optimizers, criterion, max_steps=None):
        for images, labels in loader(TEST, BATCH):
            optimizers.zero_grad()
            criterion(model(images), labels).backward()
            optimizers.step()

    evaluator = as_nni(rebind.TorchEvaluator(loop, optimizer, cross_entropy))
    evaluator.bind_model(model)
    evaluator.patch_loss(lambda loss, batch: loss + model.fc.weight.abs().sum())
    evaluator.train(2, None)
    evaluator.revert_loss()
    evaluator.patch_loss(lambda loss, batch: loss + batch[0].sum())
    with pytest.raises(rebind.TrainingError, match="training_step="):
        evaluator.train(2, None)


def test_optimizers_are_recorded_before_nni_adds_its_own_parameters():
    """`configure_optimizers` says `self.parameters()`; scores and scales of NNI's are none of the user's."""
    module, make = KINDS["LightningEvaluator"]
    model = module()
    evaluator = as_nni(make(model))
    quantizer = lsq(model, evaluator)
    evaluator._init_optimizer_helpers(model)  # as a second compressor does that wraps other modules
    evaluator.bind_model(model, quantizer._get_param_names_map())
    optimized = {id(p) for group in evaluator.binding.optimizers[0].param_groups for p in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in optimized}
    assert names == {name for name, _ in model.named_parameters() if not name.endswith("_scale")}


def test_an_evaluator_that_comes_after_the_wrapping_trains_everything():
    """NNI's own loses the wrapped layers in silence: the Parameter objects are no longer the same."""
    from nni.compression.pruning import L1NormPruner, LinearPruner

    model = Net()
    evaluator = as_nni(native_evaluator(model))
    pruner = LinearPruner(L1NormPruner(model, CONVOLUTIONS), 2, 2, evaluator=evaluator)
    pruner.compress(4, None)
    assert not torch.equal(model.conv1._nni_wrapper.weight, Net().conv1.weight)
