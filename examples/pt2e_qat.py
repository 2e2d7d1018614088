"""Quantization-aware training of an exported model (PT2E) with torchao, driven by a binding.

A small CNN is trained on handwritten digits and exported. torchao puts fake quantizers into its graph, and
folds batch norm into the convolutions. The binding goes over to that graph with its optimizer's state, trains
and evaluates. Then the graph becomes one with operators for integers.
"""

from __future__ import annotations

import torch
from digits import SmallCNN, accuracy, digits, make_evaluator
from torch import nn
from torch.fx import GraphModule
from torchao.quantization.pt2e import allow_exported_model_train_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

import rebind

STEPS = 60


def prepared(model: nn.Module) -> GraphModule:
    """Export a model for batches of any size, and put fake quantizers of 8 bits into its graph."""
    images = digits()[0][:8]
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model.train(), (images,), dynamic_shapes=({0: batch},)).module()
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    graph = prepare_qat_pt2e(exported, quantizer)
    allow_exported_model_train_eval(graph)
    graph.train()
    return graph


def converted(graph: GraphModule) -> GraphModule:
    """Give the graph with operators for integers, to evaluate."""
    graph.eval()
    quantized = convert_pt2e(graph)
    allow_exported_model_train_eval(quantized)
    return quantized


def pt2e_qat(binding: rebind.Binding) -> None:
    """Go over to the prepared graph, and train it."""
    binding.rebind(prepared(binding.model), state="carry")
    binding.train(max_steps=STEPS)


def main() -> None:
    """Print the accuracy of the dense, the trained, and the quantized CNN."""
    torch.manual_seed(0)
    model = SmallCNN()
    with rebind.bind(make_evaluator(model), model) as binding:
        binding.train()
        print(f"dense: {binding.evaluate().score:.3f}")
        pt2e_qat(binding)
        print(f"trained with fake quantizers: {binding.evaluate().score:.3f}")
        graph = binding.model
    print(f"quantized after that: {accuracy(converted(graph)):.3f}")


if __name__ == "__main__":
    main()
