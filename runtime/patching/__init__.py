"""Patches of the loss, tasks around steps, hooks: what an algorithm does to a training."""
