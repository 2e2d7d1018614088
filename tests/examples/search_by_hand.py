"""The finetuning of the searches, without the library."""

import copy

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from digits import accuracy, batches
from torch.nn.utils import prune

LAYERS = ("conv1", "conv2", "fc")
STEPS, EVERY = 60, 10


def by_hand(model, sparsities, seed, every_rung):
    """Finetune with a loop of one's own, telling value and accuracy at each rung; True ends it."""
    model = copy.deepcopy(model)
    layers = [model.get_submodule(name) for name in LAYERS]
    for layer, name in zip(layers, LAYERS, strict=True):
        prune.l1_unstructured(layer, "weight", sparsities[name])
    size = sum(layer.weight.numel() for layer in layers)
    left = sum(int((layer.weight != 0).sum()) for layer in layers)
    torch.manual_seed(seed)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for step, (x, y) in zip(range(1, STEPS + 1), batches(), strict=False):
        sgd.zero_grad()
        F.cross_entropy(model(x), y).backward()
        sgd.step()
        if step % EVERY == 0:
            right = accuracy(model)
            left_now = sum(int((layer.weight != 0).sum()) for layer in layers)
            if every_rung(step, right - 0.2 * left_now / size):
                break
            model.train()
    return left, right
