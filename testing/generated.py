"""A model from a plan: any depth and names, with tied and frozen parameters, in any width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn


@dataclass(frozen=True)
class Plan:
    """One module of a generated model.

    Attributes:
        name: Its name in the module that holds it.
        kind: `"linear"`, `"plain"` (a linear layer without bias), `"norm"`, or `"block"` (a module of
            modules).
        children: What a block holds.
        frozen: Whether its own parameters are frozen.
        tied: Whether its weight is that of the first linear layer.
    """

    name: str
    kind: str
    children: tuple[Plan, ...] = ()
    frozen: bool = False
    tied: bool = False

    def renamed(self, names: Mapping[str, str]) -> Plan:
        """Give the plan with other names of modules."""
        children = tuple(child.renamed(names) for child in self.children)
        return replace(self, name=names.get(self.name, self.name), children=children)


class Block(nn.Module):
    """Modules, one after the other."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Pass a batch through all children.

        Args:
            batch: Of shape `(n, width)`, as what comes out.
        """
        for child in self.children():
            batch = child(batch)
        return batch


class Generated(Block):
    """A model that a plan describes. Batches of shape `(n, width)` go in and come out.

    Args:
        plan: A block.
        width: Of every layer.
        seed: Of the initial weights.
    """

    def __init__(self, plan: Plan, width: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.plan: Plan = plan
        self.width: int = width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _fill(self, plan, width, [])

    def similar(
        self, width: int | None = None, seed: int = 0, names: Mapping[str, str] | None = None
    ) -> Generated:
        """Make a model of the same plan with other weights, and maybe other widths and names of modules.

        Args:
            width: Of every layer; the same, if not given.
            seed: Of the initial weights.
            names: New names of modules by their old ones, as `renames` draws them.
        """
        return Generated(self.plan.renamed(names or {}), width or self.width, seed)

    def extra_repr(self) -> str:
        """Tell the width."""
        return f"width={self.width}"


def _fill(holder: nn.Module, plan: Plan, width: int, linears: list[nn.Linear]) -> None:
    for child in plan.children:
        module = _module(child, width)
        holder.add_module(child.name, module)
        if isinstance(module, nn.Linear):
            linears.append(module)
            if child.tied:
                module.weight = linears[0].weight
        _fill(module, child, width, linears)
        if child.frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)  # noqa: FBT003 - torch knows it by place only


def _module(plan: Plan, width: int) -> nn.Module:
    if plan.kind == "block":
        return Block()
    if plan.kind == "norm":
        return nn.BatchNorm1d(width)
    return nn.Linear(width, width, bias=plan.kind == "linear")
