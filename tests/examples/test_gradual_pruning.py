"""torch-pruning in rounds through a binding, against one by hand: the same channels, weights, momenta."""

import copy
import statistics
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

import rebind

tp = pytest.importorskip("torch_pruning")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import gradual_pruning as example  # noqa: E402 - found by the lines above
import pruned_state  # noqa: E402
from digits import SmallCNN, accuracy, batches, make_evaluator  # noqa: E402

ROUNDS, STEPS = 3, 6


class ByHand:
    """The rounds without the library: hooks, kept channels and momenta are written out for this CNN."""

    def __init__(self, model):
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        self.scores = {}

    def train(self, steps):
        self.model.train()
        for _, (x, y) in zip(range(steps), batches(), strict=False):
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()

    def watch(self, steps):
        """Train, and sum up |activation x gradient| of what comes out of the batch norms."""
        model, seen = self.model, {"conv1": [], "conv2": []}

        def remember(name):
            def hook(module, inputs, output):
                output.retain_grad()
                seen[name].append((output.detach().clone(), output))

            return hook

        hooks = [
            getattr(model, norm).register_forward_hook(remember(conv))
            for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"))
        ]
        self.train(steps)
        for hook in hooks:
            hook.remove()
        self.scores = {
            getattr(model, name): sum((a * out.grad).mean((2, 3)).abs().mean(0) for a, out in pairs) / steps
            for name, pairs in seen.items()
        }

    def __call__(self, group):
        """What torch-pruning asks for the importance of a group."""
        layer = group[0].dep.target.module
        return self.scores[layer][group[0].idxs]

    def prune(self, pruner):
        """Remove channels, and make a new optimizer with the momenta of those that are left."""
        model = self.model
        before = {n: self.optimizer.state[p]["momentum_buffer"] for n, p in model.named_parameters()}
        kept = {name: list(range(getattr(model, name).out_channels)) for name in ("conv1", "conv2")}
        for group in pruner.step(interactive=True):
            name = "conv1" if group[0].dep.target.module is model.conv1 else "conv2"
            gone = set(group[0].idxs)
            kept[name] = [channel for place, channel in enumerate(kept[name]) if place not in gone]
            group.prune()
        one, two = kept["conv1"], kept["conv2"]
        columns = [4 * channel + place for channel in two for place in range(4)]  # 2 x 2 pixels are left
        momenta = {
            "conv1.weight": before["conv1.weight"][one],
            "bn1.weight": before["bn1.weight"][one],
            "bn1.bias": before["bn1.bias"][one],
            "conv2.weight": before["conv2.weight"][two][:, one],
            "bn2.weight": before["bn2.weight"][two],
            "bn2.bias": before["bn2.bias"][two],
            "fc.weight": before["fc.weight"][:, columns],
            "fc.bias": before["fc.bias"],
        }
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for name, parameter in model.named_parameters():
            self.optimizer.state[parameter]["momentum_buffer"] = momenta[name].clone()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    model = SmallCNN(16)
    ByHand(model).train(60)
    return model


def momenta(optimizer, model):
    return {name: optimizer.state[p]["momentum_buffer"] for name, p in model.named_parameters()}


def test_rounds_of_pruning_through_a_binding_are_those_by_hand(dense):
    """After each round: the same channels are gone, and weights and momenta are equal to the bit."""
    ours, theirs = copy.deepcopy(dense), copy.deepcopy(dense)
    told = []

    def go_on(binding, kept):
        example.sliced(binding, kept)
        state = momenta(binding.optimizers[0], ours)
        told.append({name: (p.detach().clone(), state[name].clone()) for name, p in ours.named_parameters()})

    with rebind.bind(make_evaluator(ours), ours) as binding:
        torch.manual_seed(1)
        example.gradual_pruning(binding, 0.75, ROUNDS, STEPS, go_on)
        score, _ = binding.evaluate()

    plain = ByHand(theirs)
    torch.manual_seed(1)
    options = {"pruning_ratio": 0.75, "iterative_steps": ROUNDS, "ignored_layers": [theirs.fc]}
    pruner = tp.pruner.BasePruner(theirs, torch.zeros(1, 1, 8, 8), importance=plain, **options)
    for round_ in told:
        plain.watch(STEPS)
        plain.prune(pruner)
        state = momenta(plain.optimizer, theirs)
        for name, parameter in theirs.named_parameters():
            weight, momentum = round_[name]
            assert torch.equal(weight, parameter), name
            assert torch.equal(momentum, state[name]), name
    plain.train(STEPS)
    assert len(told) == ROUNDS
    assert (ours.conv1.out_channels, ours.conv2.out_channels) == (4, 8)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert [name for name, value in mine.items() if not torch.equal(value, other[name])] == []
    assert score == accuracy(theirs)


def test_collected_importance_tells_channels_that_matter_from_those_that_do_not(dense):
    """Channels whose weights into the next layer are zero have an importance of zero, and go first."""
    model = copy.deepcopy(dense)
    dead = [1, 4, 5, 13]
    with torch.no_grad():
        model.conv2.weight[:, dead] = 0
    evaluator = make_evaluator(model)
    model.conv2.weight.requires_grad = False
    model.fc.weight.requires_grad = False
    with rebind.bind(evaluator, model) as binding:
        scores = example.watched_training(binding, 3)[model.conv1]
    assert set(scores.argsort()[:4].tolist()) == set(dead)
    assert (scores == 0).nonzero().flatten().tolist() == dead


def test_an_optimizer_that_does_not_go_over_trains_nothing_that_was_cut(dense):
    """The stale optimizer of the comparison: only what torch-pruning did not replace still learns."""
    model = copy.deepcopy(dense)
    with rebind.bind(make_evaluator(model), model) as binding:
        example.gradual_pruning(binding, 0.5, 1, 2, lambda binding, kept: None)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        binding.train(max_steps=3)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"fc.bias"}


def test_hooks_and_collections_end_where_a_binding_goes_over_and_the_rest_goes_on(dense):
    """What the page says: tasks and listeners are those of the binding, hooks those of the former model."""
    model = copy.deepcopy(dense)
    hooked, done, told = [], [], []
    with rebind.bind(make_evaluator(model), model) as binding:
        binding.forward_hook("bn1", lambda *_: hooked.append(1))
        collected = binding.collect("bn2", keep=1)
        binding.after_step(lambda: done.append(1))
        binding.on_event(lambda event: told.append(event.kind))
        binding.rebind(model)
        binding.train(max_steps=2)
    assert (hooked, collected.count, done) == ([], 0, [1, 1])
    assert told == ["begin", "step", "step", "end"]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("optimizer", pruned_state.OPTIMIZERS)
def test_sliced_state_beats_a_stale_optimizer_and_is_no_worse_than_a_fresh_one(optimizer):
    """Over the five seeds of the page, in test loss: lower on each, and not higher by two standard errors."""
    pruning = {"rounds": 4, "steps": 10, "final": 0.75}
    runs = [pruned_state.run(optimizer, seed, pruning) for seed in range(5)]

    def sliced_is_lower_by(way):
        return [run[way][0] - run["sliced"][0] for run in runs]

    assert min(sliced_is_lower_by("stale")) > 0.2
    over_fresh = sliced_is_lower_by("fresh")
    assert statistics.mean(over_fresh) > -2 * statistics.stdev(over_fresh) / len(runs) ** 0.5
