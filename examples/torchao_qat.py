"""Quantization-aware training with torchao, driven by a binding: two-bit weights whose ranges are learned.

A small network is trained on handwritten digits. torchao puts fake quantizers into its linear layers; the
binding goes over to these with its optimizer's state, lets their scales join, trains and evaluates. Then the
layers become really quantized ones, with the scales that were learned.
"""

from __future__ import annotations

import copy

import torch
from digits import accuracy, digits, make_evaluator
from torch import nn
from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_
from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig, initialize_fake_quantizers

import rebind

GROUP = 32  # weights that share a scale
STEPS = 100


def network() -> nn.Sequential:
    """Build two linear layers, for images of 8 x 8 pixels in 10 classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def quantized() -> IntxWeightOnlyConfig:
    """Say what the layers become: weights of two bits."""
    return IntxWeightOnlyConfig(weight_dtype=torch.int2, granularity=PerGroup(GROUP))


def prepare(model: nn.Module) -> None:
    """Put fake quantizers with learnable scales into the linear layers, in place."""
    weights = IntxFakeQuantizeConfig(
        torch.int2, group_size=GROUP, is_symmetric=True, is_dynamic=False, range_learning=True
    )
    quantize_(model, QATConfig(weight_config=weights, step="prepare"))
    initialize_fake_quantizers(model, (digits()[0][:1],))


def scales(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Give the scales of the fake quantizers, by the name of their layer."""
    return {
        name: [module.weight_fake_quantizer.scale]
        for name, module in model.named_modules()
        if hasattr(module, "weight_fake_quantizer")
    }


def convert(model: nn.Module) -> None:
    """Quantize the layers, in place."""
    quantize_(model, QATConfig(quantized(), step="convert"))


def learned_ranges(binding: rebind.Binding) -> float | None:
    """Prepare the bound model, train it with its scales, and convert it; give its score while still fake."""
    prepare(binding.model)
    binding.rebind(binding.model, state="carry")
    with binding.add_parameters(scales(binding.model)):
        binding.train(max_steps=STEPS)
        fake, _ = binding.evaluate()
    convert(binding.model)
    return fake


def main() -> None:
    """Print the accuracy of the dense, the quantized, and the trained and quantized network."""
    torch.manual_seed(0)
    model = network()
    with rebind.bind(make_evaluator(model), model) as binding:
        binding.train()
        print(f"dense: {binding.evaluate().score:.3f}")
        untrained = copy.deepcopy(model)
        quantize_(untrained, quantized())
        print(f"quantized without training: {accuracy(untrained):.3f}")
        fake = learned_ranges(binding)
        print(f"trained with fake quantizers: {fake:.3f}")
        print(f"quantized after that: {binding.evaluate().score:.3f}")


if __name__ == "__main__":
    main()
