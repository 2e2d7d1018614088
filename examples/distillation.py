"""Knowledge distillation (Hinton et al. 2015): a small model learns from the scores of a large one."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from digits import SmallCNN, make_evaluator
from torch import Tensor, nn

import rebind


def distillation(
    binding: rebind.Binding, teacher: nn.Module, temperature: float = 4.0, share: float = 0.7
) -> None:
    """Train with a loss that also compares with the teacher's scores for the batch under way."""
    teacher.eval()
    seen: dict[str, Tensor] = {}

    def see(_: nn.Module, inputs: tuple[Tensor], scores: Tensor) -> None:
        seen.update(images=inputs[0], scores=scores)

    def with_teacher(loss: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = F.softmax(teacher(seen["images"]) / temperature, 1)
        soft = F.kl_div(F.log_softmax(seen["scores"] / temperature, 1), wanted, reduction="batchmean")
        return (1 - share) * loss + share * temperature**2 * soft

    with binding.forward_hook("", see), binding.patch_loss(with_teacher):
        binding.train(max_steps=60)


def main() -> int:
    """Train a teacher, then a student of a quarter of its width by one and the same evaluator."""
    torch.manual_seed(0)
    teacher, student = SmallCNN(16), SmallCNN(4)
    evaluator = make_evaluator(teacher)
    with rebind.bind(evaluator, teacher) as binding:
        binding.train()
        best, _ = binding.evaluate()
    with rebind.bind(evaluator, student) as binding:
        distillation(binding, teacher)
        score, _ = binding.evaluate()
    print(f"distillation: teacher {best:.3f}, student {score:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
