"""The lottery ticket (Frankle and Carbin 2019): prune, rewind the rest to where it was, and train again."""

from __future__ import annotations

import torch
from digits import convolutions, run
from torch.nn.utils import prune

import rebind


def lottery_ticket(binding: rebind.Binding, amount: float = 0.4, rounds: int = 3, steps: int = 40) -> None:
    """In each round train, prune by magnitude, and rewind weights, optimizer and random numbers."""
    layers = convolutions(binding.model)
    for layer in layers.values():
        prune.identity(layer, "weight")
    start = binding.state_dict()
    for _ in range(rounds):
        binding.train(max_steps=steps)
        for layer in layers.values():
            prune.l1_unstructured(layer, "weight", amount)
        masks = {f"{name}.weight_mask": layer.weight_mask.clone() for name, layer in layers.items()}
        start["model"].update(masks)
        binding.load_state_dict(start)
        with torch.no_grad():
            for layer in layers.values():
                layer.weight = layer.weight_orig * layer.weight_mask
    binding.train(max_steps=steps)


if __name__ == "__main__":
    run(lottery_ticket)
