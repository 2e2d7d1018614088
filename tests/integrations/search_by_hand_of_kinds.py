"""The finetuning of the searches on this folder's network and data, without the library."""

import torch
from nni_material import BATCH, OPTIONS, TRAINING, Net, accuracy, loader, loss_of
from torch.nn.utils import prune

LAYERS = ("conv1", "conv2", "fc")
STEPS, EVERY = 60, 10


def finetuned(sparsities, steps):
    """Finetune with a loop of one's own: the value at each rung, the accuracy, the weights that are left."""
    model = Net()
    layers = [model.get_submodule(name) for name in LAYERS]
    for layer, name in zip(layers, LAYERS, strict=True):
        prune.l1_unstructured(layer, "weight", sparsities[name])
    size = sum(layer.weight.numel() for layer in layers)
    sgd = torch.optim.SGD(model.parameters(), **OPTIONS)
    values, right = {}, 0.0
    batches = list(loader(TRAINING, BATCH))
    for step in range(1, steps + 1):
        model.train()
        sgd.zero_grad()
        loss_of(batches[(step - 1) % len(batches)], model).backward()
        sgd.step()
        if step % EVERY == 0:
            right = accuracy(model)
            left = sum(int((layer.weight != 0).sum()) for layer in layers)
            values[step] = right - 0.2 * left / size
    return values, right, left
