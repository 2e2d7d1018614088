"""NNI's algorithms, each as a function of a model and an evaluator that makes the compressor and runs it."""

import torch
from nni_material import TRAINING, Net, parts_of

STEPS = 15
SPARSITY = 0.5
CONVOLUTIONS = [{"op_types": ["Conv2d"], "sparse_ratio": SPARSITY}]


def pruners():
    from nni.compression import pruning

    return pruning


def quantizers():
    from nni.compression import quantization

    return quantization


def distillers():
    from nni.compression import distillation

    return distillation


def masked_finetuning(name):
    """A pruner that needs no training, and the masked model trained by NNI's interface."""

    def run(model, evaluator):
        pruner = getattr(pruners(), name)(model, CONVOLUTIONS, evaluator)
        _, masks = pruner.compress()
        evaluator.bind_model(model, pruner._get_param_names_map())
        evaluator.train(STEPS, None)
        evaluator.unbind_model()
        return pruner, masks

    return run


def compressing(make, *limits):
    def run(model, evaluator):
        compressor = make(model, evaluator)
        result = compressor.compress(*limits)
        return compressor, result[1] if isinstance(result, tuple) else None

    return run


def taylor(model, evaluator, steps=10):
    return pruners().TaylorPruner(model, CONVOLUTIONS, evaluator, training_steps=steps)


def slim(model, evaluator):
    return pruners().SlimPruner(model, CONVOLUTIONS, evaluator, training_steps=10, regular_scale=0.1)


def movement(model, evaluator):
    config = [{"op_names": ["hidden"], "sparse_ratio": SPARSITY}]
    return pruners().MovementPruner(model, config, evaluator, warmup_step=2, cooldown_begin_step=12)


def linear(model, evaluator):
    inner = pruners().L1NormPruner(model, CONVOLUTIONS, evaluator)
    return pruners().LinearPruner(inner, interval_steps=4, total_times=3)


def agp(model, evaluator):
    return pruners().AGPPruner(taylor(model, evaluator, steps=4), interval_steps=4, total_times=3)


def quantization(*targets, scheme="symmetric"):
    return [
        {
            "op_types": ["Conv2d", "Linear"],
            "target_names": list(targets),
            "quant_dtype": "int8",
            "quant_scheme": scheme,
            "granularity": "default",
        }
    ]


def qat(model, evaluator):
    config = quantization("_input_", "weight", "_output_")
    return quantizers().QATQuantizer(model, config, evaluator, quant_start_step=3)


def folding(model, evaluator):
    """Batch norms are folded into their convolutions, whose biases become parameters of NNI's wrappers."""
    config = {
        "op_names": ["conv1", "conv2"],
        "target_names": ["_input_", "weight"],
        "quant_dtype": "int8",
        "granularity": "default",
        "fuse_names": [("conv1", "bn1"), ("conv2", "bn2")],
    }
    return quantizers().QATQuantizer(model, [config], evaluator)


def ptq(model, evaluator):
    return quantizers().PtqQuantizer(model, quantization("_input_", "weight"), evaluator)


def lsq(model, evaluator):
    return quantizers().LsqQuantizer(model, quantization("_input_", "weight"), evaluator)


def lsq_plus(model, evaluator):
    config = quantization("_input_", "weight", scheme="affine")
    return quantizers().LsqPlusQuantizer(model, config, evaluator)


def dorefa(model, evaluator):
    config = quantization("weight", scheme="affine")
    return quantizers().DoReFaQuantizer(model, config, evaluator)


def bnn(model, evaluator):
    config = [{"op_names": ["conv2", "hidden"], "target_names": ["weight"], "quant_dtype": "int8"}]
    return quantizers().BNNQuantizer(model, config, evaluator)


def teacher_of():
    """A trained teacher that is twice as wide."""
    teacher = Net(16, seed=1)
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.05, momentum=0.9)
    images, labels = TRAINING.tensors
    for number in range(42):
        batch = slice(64 * (number % 21), 64 * (number % 21) + 64)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(teacher(images[batch]), labels[batch]).backward()
        optimizer.step()
    return teacher.eval()


def predict(batch, teacher):
    images, _ = parts_of(batch)
    return teacher(images)


def dynamic_distiller(model, evaluator):
    config = [{"op_names": ["fc"], "lambda": 0.5, "apply_method": "kl"}]
    return distillers().DynamicLayerwiseDistiller(
        model, config, evaluator, teacher_of(), predict, origin_loss_lambda=0.5
    )


def adaptive_distiller(model, evaluator):
    """A linear layer maps the student's 32 hidden features onto the teacher's 64, and trains along."""
    config = [
        {"op_names": ["hidden"], "lambda": 1.0, "apply_method": "mse"},
        {"op_names": ["fc"], "lambda": 0.5, "apply_method": "kl"},
    ]
    distiller = distillers().Adaptive1dLayerwiseDistiller(model, config, evaluator, teacher_of(), predict)
    distiller.track_forward(TRAINING.tensors[0][:8])
    return distiller


ALGORITHMS = {
    "LevelPruner": masked_finetuning("LevelPruner"),
    "L1NormPruner": masked_finetuning("L1NormPruner"),
    "L2NormPruner": masked_finetuning("L2NormPruner"),
    "FPGMPruner": masked_finetuning("FPGMPruner"),
    "TaylorPruner": compressing(taylor),
    "SlimPruner": compressing(slim),
    "MovementPruner": compressing(movement, STEPS, None),
    "LinearPruner": compressing(linear, STEPS, None),
    "AGPPruner": compressing(agp, STEPS, None),
    "QATQuantizer": compressing(qat, STEPS, None),
    "QATQuantizer, folding": compressing(folding, STEPS, None),
    "LsqQuantizer": compressing(lsq, STEPS, None),
    "LsqPlusQuantizer": compressing(lsq_plus, STEPS, None),
    "DoReFaQuantizer": compressing(dorefa, STEPS, None),
    "BNNQuantizer": compressing(bnn, STEPS, None),
    "PtqQuantizer": compressing(ptq, STEPS, None),
    "DynamicLayerwiseDistiller": compressing(dynamic_distiller, STEPS, None),
    "Adaptive1dLayerwiseDistiller": compressing(adaptive_distiller, STEPS, None),
}
