"""Each algorithm against a plain version without the library: the same weights and masks, to the bit."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch.nn.utils import parametrize, prune

import rebind

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from agp_pruning import agp_pruning
from apoz_pruning import apoz_pruning
from digits import SmallCNN, accuracy, batches, make_evaluator
from distillation import distillation
from lottery_ticket import lottery_ticket
from movement_pruning import Scored, movement_pruning
from network_slimming import network_slimming
from sensitivity_pruning import LAYERS, SPARSITIES, sensitivity_pruning
from taylor_pruning import taylor_pruning

NAMES = ("conv1", "conv2")


class Plain:
    """A model and its optimizer, and the loop with places to write into."""

    def __init__(self, model):
        self.model = model
        self.sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def train(self, steps, loss=F.cross_entropy, before=lambda: None, after=lambda: None):
        self.model.train()
        for _, (x, y) in zip(range(steps), batches(), strict=False):
            self.sgd.zero_grad()
            loss(self.model(x), y).backward()
            before()
            self.sgd.step()
            after()


def plain_taylor(plain):
    convs = [plain.model.conv1, plain.model.conv2]
    scores = [torch.zeros(conv.out_channels) for conv in convs]

    def before():
        for conv, score in zip(convs, scores, strict=True):
            score += (conv.weight * conv.weight.grad).detach().sum((1, 2, 3)).square()

    plain.train(10, before=before)
    structured(convs, scores)
    plain.train(40)


def structured(convs, scores):
    for conv, score in zip(convs, scores, strict=True):
        spread = score.view(-1, 1, 1, 1).expand_as(conv.weight)
        prune.ln_structured(conv, "weight", 0.5, n=1, dim=0, importance_scores=spread)


def plain_apoz(plain):
    model = plain.model
    sums = [torch.zeros(8), torch.zeros(16)]
    hooks = [
        relu.register_forward_hook(
            lambda m, i, out, s=s: (s.add_((out > 0).float().mean((0, 2, 3))), None)[1]
        )
        for relu, s in zip((model.relu1, model.relu2), sums, strict=True)
    ]
    plain.train(10)
    for hook in hooks:
        hook.remove()
    structured([model.conv1, model.conv2], [s / 10 for s in sums])
    plain.train(40)


def plain_agp(plain):
    done = [0]

    def after():
        done[0] += 1
        if done[0] % 10 == 0:
            for conv in (plain.model.conv1, plain.model.conv2):
                wanted = round(0.8 * (1 - (1 - done[0] / 60) ** 3) * conv.weight.numel())
                prune.l1_unstructured(conv, "weight", max(wanted - int((conv.weight == 0).sum()), 0))

    plain.train(60, after=after)
    plain.train(40)


def plain_slimming(plain):
    norms = [plain.model.bn1, plain.model.bn2]
    plain.train(
        60,
        lambda out, y: F.cross_entropy(out, y) + 1e-2 * torch.cat([n.weight for n in norms]).abs().sum(),
    )
    pairs = [(norm, name) for norm in norms for name in ("weight", "bias")]
    scores = {pair: pair[0].weight.detach().abs().clone() for pair in pairs}
    prune.global_unstructured(pairs, prune.L1Unstructured, importance_scores=scores, amount=0.5)
    plain.train(40)


def plain_lottery(plain):
    convs = [plain.model.conv1, plain.model.conv2]
    for conv in convs:
        prune.identity(conv, "weight")
    start = {name: value.clone() for name, value in plain.model.state_dict().items()}
    random = torch.get_rng_state()
    for _ in range(3):
        plain.train(40)
        for conv in convs:
            prune.l1_unstructured(conv, "weight", 0.4)
        masks = [conv.weight_mask.clone() for conv in convs]
        plain.model.load_state_dict(start)
        for conv, mask in zip(convs, masks, strict=True):
            conv.weight_mask.copy_(mask)
            conv.weight = conv.weight_orig.detach() * mask
        plain.sgd = torch.optim.SGD(plain.model.parameters(), lr=0.05, momentum=0.9)
        torch.set_rng_state(random)
    plain.train(40)


def plain_sensitivity(plain):
    reference, chosen = accuracy(plain.model), {}
    for name in LAYERS:
        layer, best = plain.model.get_submodule(name), 0.0
        for sparsity in SPARSITIES:
            weight = layer.weight.data.clone()
            magnitudes = weight.abs().flatten()
            layer.weight.data.view(-1)[magnitudes.argsort()[: round(sparsity * len(magnitudes))]] = 0
            score = accuracy(plain.model)
            layer.weight.data.copy_(weight)
            if score < reference - 0.02:
                break
            best = sparsity
        chosen[name] = best
    for name, sparsity in chosen.items():
        prune.l1_unstructured(plain.model.get_submodule(name), "weight", sparsity)
    plain.train(40)


def plain_movement(plain):
    convs = [plain.model.conv1, plain.model.conv2]
    scored = [Scored(conv.weight, 0.5) for conv in convs]
    for conv, one in zip(convs, scored, strict=True):
        parametrize.register_parametrization(conv, "weight", one)
    trained, plain.sgd = plain.sgd, torch.optim.SGD(plain.model.parameters(), lr=0.05, momentum=0.9)
    plain.sgd.state.update(trained.state)
    plain.train(60)
    for conv, one in zip(convs, scored, strict=True):
        parametrize.remove_parametrizations(conv, "weight", leave_parametrized=False)
        prune.custom_from_mask(conv, "weight", one.mask())
    plain.sgd.param_groups[0]["params"] = list(trained.param_groups[0]["params"])
    plain.train(40)


ALGORITHMS = {
    taylor_pruning: plain_taylor,
    apoz_pruning: plain_apoz,
    agp_pruning: plain_agp,
    network_slimming: plain_slimming,
    lottery_ticket: plain_lottery,
    sensitivity_pruning: plain_sensitivity,
    movement_pruning: plain_movement,
}


def pretrained(model):
    torch.manual_seed(1)
    Plain(model).train(30)
    return model


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.__name__)
def test_an_algorithm_through_a_binding_is_the_plain_one_to_the_bit(algorithm):
    """Equal weights, masks and statistics, and so an equal accuracy."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(pretrained(SmallCNN()))
    ours, theirs = models
    with rebind.bind(make_evaluator(ours), ours) as binding:
        torch.manual_seed(2)
        algorithm(binding)
        score = binding.evaluate().score
    torch.manual_seed(2)
    ALGORITHMS[algorithm](Plain(theirs))
    assert_same(ours, theirs)
    assert score == accuracy(theirs)
    assert score > 0.5


def assert_same(ours, theirs):
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    assert [name for name, value in mine.items() if not torch.equal(value, other[name])] == []


def test_distillation_through_a_binding_is_the_plain_one_to_the_bit():
    torch.manual_seed(0)
    teacher = pretrained(SmallCNN(16)).eval()
    students = []
    for _ in range(2):
        torch.manual_seed(3)
        students.append(SmallCNN(4))
    with rebind.bind(make_evaluator(students[0]), students[0]) as binding:
        torch.manual_seed(2)
        distillation(binding, teacher)
    plain = Plain(students[1])
    torch.manual_seed(2)
    students[1].train()
    for _, (x, y) in zip(range(60), batches(), strict=False):
        plain.sgd.zero_grad()
        scores = students[1](x)
        with torch.no_grad():
            wanted = F.softmax(teacher(x) / 4.0, 1)
        soft = F.kl_div(F.log_softmax(scores / 4.0, 1), wanted, reduction="batchmean")
        ((1 - 0.7) * F.cross_entropy(scores, y) + 0.7 * 4.0**2 * soft).backward()
        plain.sgd.step()
    assert_same(*students)
    assert accuracy(students[0]) > 0.5
