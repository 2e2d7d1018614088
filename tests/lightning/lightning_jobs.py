"""What workers import: modules and data for trials."""

import torch
from lightning_material import net


def train_seeded(binding):
    torch.manual_seed(1)
    binding.train()
    return 0.0


def make(form):
    return net(form)
