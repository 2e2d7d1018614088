"""The models of the table: small, of two shapes, with any initial weights."""

import copy
import functools

import torch
from torch import nn


class Net(nn.Module):
    """Two blocks and a head, with a frozen scale where parameters may be of any dimension."""

    def __init__(self, width: int, *, matrices_only: bool) -> None:
        super().__init__()
        bias = not matrices_only
        self.body = nn.Sequential(nn.Linear(3, width, bias=bias), nn.Tanh(), nn.Linear(width, 2, bias=bias))
        self.head = nn.Linear(2, 2, bias=bias)
        self.frozen = nn.Linear(2, 2, bias=False).requires_grad_(False)


# The model that evaluators are created with, and the two they are bound to.
SHAPES = {"recorded": (4, 0), "other weights": (4, 1), "other widths": (6, 2)}


def make_model(shape: str, matrices_only: bool = False) -> Net:
    return copy.deepcopy(_template(shape, matrices_only))


@functools.cache
def _template(shape: str, matrices_only: bool) -> Net:
    width, seed = SHAPES[shape]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(width, matrices_only=matrices_only)
