"""torchao's quantization-aware training through a binding, against a loop by hand: the same bits."""

import copy
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

import rebind

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
pytest.importorskip("torchao")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's own, of deprecated calls, when torchao imports its parts
    import pt2e_qat
    import torchao_qat
from digits import SmallCNN, accuracy, batches, make_evaluator


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sgd(params):
    return torch.optim.SGD(params, lr=0.05, momentum=0.9)


def loop(model, optimizer, steps, after=lambda: None):
    model.train()
    for _, (x, y) in zip(range(steps), batches(), strict=False):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        after()


def twins(make):
    """Two networks with the same weights, trained a little by hand, and the momentum of the second."""
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        model = make()
        optimizer = sgd(model.parameters())
        made.append((model, optimizer))
    return made


def assert_same(ours, theirs):
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    assert [name for name, value in mine.items() if not torch.equal(value, other[name])] == []


def test_learned_ranges_through_a_binding_are_those_of_a_loop_by_hand():
    """Weights, momenta, scales, the score while fake, and the quantized layers are equal to the bit."""
    (ours, _), (theirs, optimizer) = twins(torchao_qat.network)
    with rebind.bind(make_evaluator(ours), ours) as binding:
        torch.manual_seed(1)
        binding.train(max_steps=40)
        fake = torchao_qat.learned_ranges(binding)
        score, _ = binding.evaluate()

    torch.manual_seed(1)
    loop(theirs, optimizer, 40)
    torchao_qat.prepare(theirs)
    scales = [module.weight_fake_quantizer.scale for module in (theirs[1], theirs[3])]
    start = [scale.detach().clone() for scale in scales]
    optimizer.param_groups[0]["params"] += scales
    loop(theirs, optimizer, torchao_qat.STEPS)
    assert fake == accuracy(theirs)
    assert all((scale != before).any() for scale, before in zip(scales, start, strict=True)), "they learned"
    torchao_qat.convert(theirs)
    for layer in (1, 3):
        mine, other = ours[layer].weight, theirs[layer].weight
        assert type(mine) is type(other) is not torch.nn.Parameter
        assert torch.equal(mine.qdata, other.qdata)
        assert torch.equal(mine.scale, other.scale)
        assert torch.equal(mine.scale, scales[layer // 2]), "what was learned is what it is quantized with"
        assert torch.equal(ours[layer].bias, theirs[layer].bias)
    assert score == accuracy(theirs) > 0.85


def qat(binding):
    binding.train(max_steps=20)
    torchao_qat.learned_ranges(binding)
    return binding.evaluate()


def test_a_quantized_network_comes_out_of_a_worker_and_off_a_disk(tmp_path):
    """Its state has tensors of integers; a new network that it is loaded into gives the same score."""
    evaluator = make_evaluator(torchao_qat.network())
    trial = rebind.Trial(model=torchao_qat.network, task=qat, name="quantized")
    pool = rebind.LocalPool(workers=1)
    with pool, rebind.run_trials(evaluator, [trial], pool, state_dicts=True) as results:
        (result,) = results
    assert result.error is None
    torch.save(result.state_dict, tmp_path / "quantized.pt")
    for state in (result.state_dict, torch.load(tmp_path / "quantized.pt")):
        network = torchao_qat.network()
        network.load_state_dict(state, assign=True)
        assert hasattr(network[1].weight, "qdata")
        with rebind.bind(evaluator, network) as binding:
            assert binding.evaluate().score == result.score


def test_scales_that_have_not_joined_do_not_learn():
    """Which is why they have to."""
    (model, _), _ = twins(torchao_qat.network)
    with rebind.bind(make_evaluator(model), model) as binding:
        torchao_qat.prepare(model)
        binding.rebind(model, state="carry")
        assert binding.report.new == ("1.weight_fake_quantizer.scale", "3.weight_fake_quantizer.scale")
        scale = model[1].weight_fake_quantizer.scale
        before = scale.detach().clone()
        binding.train(max_steps=5)
        assert torch.equal(scale, before)
        with binding.add_parameters(torchao_qat.scales(model)):
            binding.train(max_steps=5)
        assert not torch.equal(scale, before)
        left = scale.detach().clone()
        binding.train(max_steps=5)
        assert torch.equal(scale, left), "they have left again"


def test_a_schedule_of_fake_quantization_is_a_task_after_each_step():
    """It begins after ten steps, as by hand; a binding can be closed while fake quantizers are there."""
    (ours, _), (theirs, optimizer) = twins(torchao_qat.network)

    def enable(model, value):
        for layer in (model[1], model[3]):
            layer.weight_fake_quantizer.enabled = value

    torchao_qat.prepare(ours)
    enable(ours, value=False)
    with rebind.bind(make_evaluator(ours), ours) as binding:
        binding.add_parameters(torchao_qat.scales(ours))
        binding.on_event(lambda event: event.step == 10 and enable(ours, value=True))
        torch.manual_seed(1)
        binding.train(max_steps=20)
        score, _ = binding.evaluate()

    torchao_qat.prepare(theirs)
    enable(theirs, value=False)
    optimizer.param_groups[0]["params"] += [theirs[n].weight_fake_quantizer.scale for n in (1, 3)]
    done = []
    torch.manual_seed(1)
    loop(theirs, optimizer, 20, lambda: (done.append(1), len(done) == 10 and enable(theirs, value=True)))
    assert_same(ours, theirs)
    assert score == accuracy(theirs)


@pytest.fixture(scope="module")
def graph():
    """A CNN that was trained a little, its momentum, and its graph with fake quantizers."""
    torch.manual_seed(0)
    model = SmallCNN()
    optimizer = sgd(model.parameters())
    loop(model, optimizer, 40)
    return model, optimizer, pt2e_qat.prepared(copy.deepcopy(model))


def test_an_exported_model_is_trained_through_a_binding_as_by_hand():
    """Weights, buffers, observers, and the outputs of the graph with integers are equal to the bit."""
    (ours, _), (theirs, optimizer) = twins(SmallCNN)
    with rebind.bind(make_evaluator(ours), ours) as binding:
        torch.manual_seed(1)
        binding.train(max_steps=40)
        pt2e_qat.pt2e_qat(binding)
        score, _ = binding.evaluate()
        mine = binding.model

    torch.manual_seed(1)
    loop(theirs, optimizer, 40)
    theirs = pt2e_qat.prepared(theirs)
    optimizer.param_groups[0]["params"] = parameters = list(theirs.parameters())
    assert [id(p) for p in parameters] == [id(p) for p in optimizer.state], "export keeps them"
    loop(theirs, optimizer, pt2e_qat.STEPS)
    assert score == accuracy(theirs) > 0.9  # which moves the observers, and counts batches
    assert_same(mine, theirs)
    x = torch.rand(5, 1, 8, 8)
    mine, theirs = pt2e_qat.converted(mine), pt2e_qat.converted(theirs)
    assert torch.equal(mine(x), theirs(x))
    assert any("quantized_decomposed" in str(node.target) for node in mine.graph.nodes)
    assert accuracy(mine) == accuracy(theirs) > 0.9


def test_an_evaluation_in_the_midst_leaves_an_exported_model_in_its_training_mode(graph):
    """Its mode is in its graph; batch norm trains on as by hand."""
    model = pt2e_qat.prepared(copy.deepcopy(graph[0]))
    with rebind.bind(make_evaluator(graph[0]), model) as binding:
        binding.after_step(binding.evaluate)
        torch.manual_seed(1)
        binding.train(max_steps=3)
    plain = pt2e_qat.prepared(copy.deepcopy(graph[0]))
    torch.manual_seed(1)
    loop(plain, sgd(plain.parameters()), 3, lambda: (accuracy(plain), plain.train()))
    assert_same(model, plain)


@pytest.mark.parametrize("training", [True, False])
def test_a_closed_binding_leaves_an_exported_model_in_the_mode_it_was_in(graph, training):
    """Whatever training and evaluation made of it."""
    model = pt2e_qat.prepared(copy.deepcopy(graph[0]))
    model.train(training)
    with rebind.bind(make_evaluator(graph[0]), model) as binding:
        binding.train(max_steps=1)
        if training:
            binding.evaluate()
    assert model._exported_training is training
