"""What workers import: models and tasks for trials with a Trainer."""

import torch
import trainer_material as material


def train_and_score(binding):
    torch.manual_seed(1)
    binding.train()
    return binding.evaluate()


def narrow():
    return material.net(5, seed=4)


def wide():
    return material.net(8, seed=3)


def penalized(binding):
    binding.patch_loss(lambda loss: loss + 0.1 * binding.model.fc1.weight.abs().sum())
    binding.after_step(lambda: binding.model.fc2.bias.data.clamp_(-0.1, 0.1))
    binding.train(max_steps=5)
    return binding.evaluate()
