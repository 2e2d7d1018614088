"""Smaller MiniLMs: with fewer heads, neurons or layers, with zeros among the weights, or in 8 bits.

A variant is made from the trained model by `shrink`, trains as what that gives, and becomes by `finish` what
is measured and kept.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def _as_it_is(model: nn.Module) -> nn.Module:
    return model


@dataclass(frozen=True)
class Variant:
    """A way to make a model smaller.

    Attributes:
        shrink: Changes the trained model, in place.
        finish: Gives, of a model that was shrunk and trained, what is kept. It may change what it gets.
        rename: Where recorded parameters are by then; see `rebind.bind`.
        lacks: Whether recorded parameters are gone for good.
    """

    shrink: Callable[[nn.Module], nn.Module] = _as_it_is
    finish: Callable[[nn.Module], nn.Module] = _as_it_is
    rename: Any = None
    lacks: bool = False


def narrowed(linear: nn.Linear, *, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Linear:
    """Give a linear layer with only these outputs or inputs of another."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    if rows is not None:
        weight, bias = weight[rows], bias[rows]
    if columns is not None:
        weight = weight[:, columns]
    smaller = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        smaller.weight.copy_(weight)
        smaller.bias.copy_(bias)
    smaller.weight.requires_grad_(linear.weight.requires_grad)
    smaller.bias.requires_grad_(linear.bias.requires_grad)
    return smaller


def with_fewer_heads(model: nn.Module, keep: int) -> nn.Module:
    """Keep the attention heads of each layer that write the most: by the norm of value and output weights."""
    for layer in model.body.encoder.layer:
        attention, output = layer.attention.self, layer.attention.output
        size = attention.attention_head_size
        written = output.dense.weight.detach().unflatten(1, (-1, size)).square().sum((0, 2))
        read = attention.value.weight.detach().unflatten(0, (-1, size)).square().sum((1, 2))
        heads = (written * read).topk(keep).indices.sort().values
        lines = (heads[:, None] * size + torch.arange(size)).flatten()
        for name in ("query", "key", "value"):
            setattr(attention, name, narrowed(getattr(attention, name), rows=lines))
        output.dense = narrowed(output.dense, columns=lines)
        attention.num_attention_heads, attention.all_head_size = keep, keep * size
    return model


def with_fewer_neurons(model: nn.Module, keep: int) -> nn.Module:
    """Keep the hidden neurons of each feed-forward block whose weights in and out are the largest."""
    for layer in model.body.encoder.layer:
        first, second = layer.intermediate, layer.output
        taken = first.dense.weight.detach().square().sum(1)
        given = second.dense.weight.detach().square().sum(0)
        neurons = (taken * given).topk(keep).indices.sort().values
        first.dense = narrowed(first.dense, rows=neurons)
        second.dense = narrowed(second.dense, columns=neurons)
    return model


def with_fewer_heads_and_neurons(model: nn.Module, heads: int, neurons: int) -> nn.Module:
    """Keep fewer of both."""
    return with_fewer_neurons(with_fewer_heads(model, heads), neurons)


def with_layers(model: nn.Module, keep: tuple[int, ...]) -> nn.Module:
    """Keep only these layers. They are counted anew, so the names of their parameters change."""
    encoder = model.body.encoder
    encoder.layer = nn.ModuleList(encoder.layer[i] for i in keep)
    model.body.config.num_hidden_layers = len(keep)
    return model


class Masked(nn.Module):
    """Weights of which some are zero, and stay so."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Mask."""
        return weight * self.mask


def with_zeros(model: nn.Module, share: float) -> nn.Module:
    """Mask this share of the weights in all layers together, the smallest ones."""
    linears = _linears(model)
    magnitudes = torch.cat([linear.weight.detach().abs().flatten() for linear in linears])
    threshold = magnitudes.kthvalue(round(share * len(magnitudes))).values
    for linear in linears:
        mask = linear.weight.detach().abs() > threshold
        if linear.weight.requires_grad:
            parametrize.register_parametrization(linear, "weight", Masked(mask))
        else:
            linear.weight.mul_(mask)
    return model


def zeros_written(model: nn.Module) -> nn.Module:
    """Turn masks into zeros."""
    return _with_plain_layers(model, lambda linear: linear.weight)


class Rounded(nn.Module):
    """Weights as 8 bits will hold them, with a scale for each output; gradients pass as if nothing were."""

    def forward(self, weight: Tensor) -> Tensor:
        """Round."""
        scale = weight.detach().abs().amax(1).clamp(min=1e-8) / 127.5
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -128, 127)


def rounding(model: nn.Module) -> nn.Module:
    """Let the layers compute with rounded weights."""
    for linear in _linears(model):
        parametrize.register_parametrization(linear, "weight", Rounded())
    return model


def rounding_with_fewer_neurons(model: nn.Module, keep: int) -> nn.Module:
    """Keep fewer neurons, and round what is left."""
    return rounding(with_fewer_neurons(model, keep))


def in_8_bits(model: nn.Module) -> nn.Module:
    """Convert to torch's own modules with int8 weights: linear layers and the words' embeddings."""
    from torch.ao import quantization

    # From the weights that were trained: torch rounds them as they were in training.
    model = _with_plain_layers(model, lambda linear: linear.parametrizations.weight.original)
    kinds = {
        nn.Linear: quantization.per_channel_dynamic_qconfig,
        "body.embeddings.word_embeddings": quantization.float_qparams_weight_only_qconfig,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants to move this elsewhere
        return quantization.quantize_dynamic(model.eval(), kinds)


def _with_plain_layers(model: nn.Module, weight_of: Callable[[Any], Tensor]) -> nn.Module:
    """Put a plain layer with these weights in the place of each layer that computes its weights."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and parametrize.is_parametrized(child):
                plain = nn.Linear(child.in_features, child.out_features)
                plain.load_state_dict({"weight": weight_of(child).detach(), "bias": child.bias.detach()})
                setattr(module, name, plain)
    return model


def _linears(model: nn.Module) -> list[nn.Linear]:
    """List the linear layers of the encoder."""
    return [module for module in model.body.encoder.modules() if isinstance(module, nn.Linear)]


VARIANTS = {
    "as it is": Variant(),
    "6 of 12 heads": Variant(partial(with_fewer_heads, keep=6)),
    "768 of 1536 neurons": Variant(partial(with_fewer_neurons, keep=768)),
    "6 heads, 768 neurons": Variant(partial(with_fewer_heads_and_neurons, heads=6, neurons=768)),
    "4 of 6 layers": Variant(
        partial(with_layers, keep=(0, 2, 3, 5)),
        rename=[(r"\.layer\.3\.", ".layer.2."), (r"\.layer\.5\.", ".layer.3.")],
        lacks=True,
    ),
    "50 % zeros": Variant(partial(with_zeros, share=0.5), zeros_written),
    "80 % zeros": Variant(partial(with_zeros, share=0.8), zeros_written),
    "8 bits": Variant(rounding, in_8_bits),
    "8 bits, 768 neurons": Variant(partial(rounding_with_fewer_neurons, keep=768), in_8_bits),
}


def finished(variant: Variant, model: nn.Module) -> nn.Module:
    """Give what is kept of a model, which stays as it is."""
    return variant.finish(copy.deepcopy(model)).eval()


def nonzero(model: nn.Module) -> int:
    """Count the parameters that are not zero, also those that are packed as 8 bits."""
    tensors = list(model.parameters())
    for module in model.modules():
        if callable(weight := getattr(module, "weight", None)):  # a module of torch's with int8 weights
            tensors.append(weight().dequantize())
            bias = getattr(module, "bias", None)
            tensors.extend([bias()] if callable(bias) and bias() is not None else [])
    return sum(int(tensor.count_nonzero()) for tensor in tensors)
