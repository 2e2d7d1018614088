"""NNI's own compressors on our evaluators: the same bits as on NNI's own evaluator, where that works."""

import pickle
from functools import cache

import pytest
import torch
from nni_algorithms import ALGORITHMS, CONVOLUTIONS, quantization
from nni_material import KINDS, Net, nni_evaluator, train, train_as_a_trainer_seeds
from nni_witnesses import WITNESSES

import rebind
from rebind.runtime.integrations.nni import as_nni

pytestmark = pytest.mark.integrations


def same(one, other):
    """Nested values that are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def run(name, model, evaluator):
    torch.manual_seed(1)  # BNN and DoReFa draw numbers, and so does the distiller's linear layer
    compressor, result = ALGORITHMS[name](model, evaluator)
    return compressor, result, state_of(model)


@cache
def by_nni_alone(name, training=train):
    """What NNI's own evaluator gives for a plain module."""
    model = Net()
    evaluator = nni_evaluator(model, training)
    if name == "QATQuantizer, folding":
        # NNI enters the biases of folded layers into the optimizer twice, and so trains them twice.
        evaluator.patch_optim_param_group = lambda additions: None
    _, result, state = run(name, model, evaluator)
    return result, state


def assert_nothing_is_left(model, modes):
    """No hook, no attribute and no flag of a binding; what NNI's wrappers are made of stays."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            assert not (key.endswith("_hooks") and value), f"{name}: {key}"
            assert not type(value).__module__.startswith("rebind"), f"{name}: {key}"
        if name in modes:
            assert module.training == modes[name], name
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad, name
        assert not parameter._backward_hooks, name
    assert getattr(model, "_trainer", None) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_does_the_same_as_with_nnis_own_evaluator(name, kind):
    """Masks, scales and weights agree to the bit, on both runs, and nothing of ours stays on the model."""
    module, make = KINDS[kind]
    model = module()
    own = make(model)
    evaluator = as_nni(own)
    before = own.fields()
    by_trainer = kind == "TransformersEvaluator"
    expected, state = by_nni_alone(name, train_as_a_trainer_seeds if by_trainer else train)
    # The second run has another model, and an evaluator out of a file and through a pickle.
    for _ in range(2):
        modes = {name: module.training for name, module in model.named_modules()}
        compressor, result, reached = run(name, model, evaluator)
        assert same(reached, state), [key for key in state if not same(reached.get(key), state[key])]
        assert same(result, expected)
        assert_nothing_is_left(model, modes)
        for did_its_work in WITNESSES[name]:
            did_its_work(compressor, result, model)
        assert evaluator.model is None
        assert evaluator.get_all_hooks() == []
        compressor.unwrap_model()
        assert set(dict(model.named_parameters())) == set(dict(module().named_parameters()))
        from_file = rebind.loads(rebind.dumps(own), trusted=True)
        model, evaluator = module(), pickle.loads(pickle.dumps(as_nni(from_file)))
    assert evaluator.evaluator == own
    assert own.fields() == before


@pytest.mark.parametrize("kind", KINDS)
def test_two_compressors_one_after_the_other_share_an_evaluator_and_a_model(kind):
    """A pruned model is quantized: `from_compressor` takes over wrappers, masks and the evaluator."""
    from nni.compression.pruning import L1NormPruner
    from nni.compression.quantization import QATQuantizer

    results = []
    for make_model, make in ((Net, nni_evaluator), (KINDS[kind][0], lambda m: as_nni(KINDS[kind][1](m)))):
        model = make_model()
        pruner = L1NormPruner(model, CONVOLUTIONS, make(model))
        pruner.interval_steps = 3  # masks are made at the third step, and the quantizer trains on
        quantizer = QATQuantizer.from_compressor(pruner, quantization("_input_", "weight"))
        quantizer.compress(8, None)
        results.append((pruner.get_masks(), state_of(model)))
    assert same(*results)
    assert float(results[1][0]["conv2"]["weight"].mean()) == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_model_is_pruned_by_a_compressor_that_takes_it_over(kind):
    """The other way round: quantizers train on while scores are taken, and after the masks are there."""
    from nni.compression.pruning import TaylorPruner
    from nni.compression.quantization import QATQuantizer

    results = []
    training = train_as_a_trainer_seeds if kind == "TransformersEvaluator" else train
    for make_model, make in (
        (Net, lambda model: nni_evaluator(model, training)),
        (KINDS[kind][0], lambda model: as_nni(KINDS[kind][1](model))),
    ):
        model = make_model()
        quantizer = QATQuantizer(model, quantization("_input_", "weight"), make(model))
        pruner = TaylorPruner.from_compressor(quantizer, CONVOLUTIONS, training_steps=6)
        _, masks = pruner.compress(8, None)
        results.append((masks, state_of(model)))
    assert same(*results)
    assert float(results[1][0]["conv2"]["weight"].mean()) == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_an_unwrapped_model_is_the_users_own_and_is_compressed_and_trained_again(kind):
    """A pruner, a quantizer and a binding on one evaluator, one after the other: each finds it whole."""
    results = []
    training = train_as_a_trainer_seeds if kind == "TransformersEvaluator" else train
    for make_model, make in (
        (Net, lambda model: nni_evaluator(model, training)),
        (KINDS[kind][0], lambda model: as_nni(KINDS[kind][1](model))),
    ):
        model = make_model()
        evaluator = make(model)
        for name in ("TaylorPruner", "LsqQuantizer"):
            if not results:
                evaluator = make(model)  # NNI's own serves one compressor
            compressor, _ = ALGORITHMS[name](model, evaluator)
            compressor.unwrap_model()
            assert set(dict(model.named_parameters())) == set(dict(make_model().named_parameters()))
        results.append(state_of(model))
    assert same(*results)
    with rebind.bind(evaluator.evaluator, model) as binding:
        assert not binding.report.new
        binding.train(max_steps=2)
        assert binding.steps == 2
