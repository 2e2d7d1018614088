"""Training.

A bound training of a CNN on handwritten digits, with one loss patch and two step tasks, beside the same
penalty and the same two counts written by hand: into the user's own loop, and into a `LightningModule`.
Both end with the same weights, bit for bit, which is checked before they are timed. The times are those of
the processor, on one thread, so that other programs hardly disturb them: the differences are around one
percent. Where many steps are compared, the two trainings advance in turns, step by step and on the same core,
and ten steps at the same place of both are a round; *a whole training* is all of its steps, trainer and
binding included. *Construct and fit one step* is a whole training of one step. *A step task* is what one task
adds to a step of an optimizer that does nothing.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from digits import SmallCNN, digits
from harness.benchmark import Run
from harness.record import Comparison, Place, Promise
from harness.side_by_side import Pause, PausingWork, side_by_side
from harness.turns import Timed, compare, take_turns, timed
from lightning_sweep import Classifier, Digits
from torch import Tensor, nn

import rebind

_NATIVE, _TASK = "A loop in PyTorch: ten steps", "A step task"
_ONE_STEP, _TEN_STEPS = "Lightning: construct and fit one step", "Lightning: ten steps of 200"
_WHOLE = "Lightning: a whole training of 200 steps"
_BY_HAND = "by hand"
_SMALL = 1e-4


def _at_most(family: str, limit: float, says: str) -> Promise:
    of, to = (Place(family=family, contestant=name) for name in ("rebind", _BY_HAND))
    return Promise(says=f"{says} takes at most {limit} times as long as by hand", of=of, to=to, limit=limit)


PEERS = ()
PROMISES = (
    _at_most(_NATIVE, 1.01, "a bound loop in PyTorch"),
    _at_most(_TEN_STEPS, 1.01, "a step of a bound training by Lightning"),
    _at_most(_WHOLE, 1.01, "a bound training by Lightning"),
    _at_most(_ONE_STEP, 1.1, "constructing everything and fitting one step with Lightning"),
    Promise(says="a step task takes at most 5 µs", of=Place(family=_TASK, contestant="rebind"), limit=5e-6),
)
_QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "logger": False,
    "max_epochs": -1,
}


def comparisons(run: Run) -> Iterator[Comparison]:
    """Compare the loops, the trainings by Lightning, and steps with and without tasks."""
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    width = run.pick(32, 4)
    yield _tens(_NATIVE, side_by_side(loops(width, run.pick(100, 20)), run.pick(40, 2)))
    yield compare(_ONE_STEP, one_step(8), run.pick(40, 2), baseline=_BY_HAND, warm_up=2)
    trainings = side_by_side(many_steps(width, run.pick(200, 20)), run.pick(40, 2))
    yield _tens(_TEN_STEPS, trainings)
    wholes = {name: tuple(map(sum, each)) for name, each in trainings.items()}
    yield Comparison(family=_WHOLE, baseline=_BY_HAND, samples=wholes)
    yield step_tasks(run.pick(15, 2), run.pick(10_000, 100))


def _tens(family: str, trainings: dict[str, list[tuple[float, ...]]]) -> Comparison:
    """Compare ten steps of one with the same ten of the other, but for the first and the last stretch."""
    samples = {
        name: tuple(sum(each[at : at + 10]) for each in found for at in range(1, len(each) - 10, 10))
        for name, found in trainings.items()
    }
    return Comparison(family=family, baseline=_BY_HAND, samples=samples)


def _go_on() -> None:
    """Make no pause."""


class PausingCNN(SmallCNN):
    """With a pause that its training makes before each batch."""

    def __init__(self, width: int, pause: Pause) -> None:
        super().__init__(width)
        self.pause = pause


def train(model: PausingCNN, optimizers: Any, criterion: Any, max_steps: int = 1) -> None:
    """Train on the first images, batch by batch: the user's own loop."""
    images, labels, _, _ = digits()
    model.train()
    for step in range(max_steps):
        model.pause()
        first = 64 * (step % 20)
        optimizers.zero_grad()
        criterion(model(images[first : first + 64]), labels[first : first + 64]).backward()
        optimizers.step()


def train_by_hand(model: PausingCNN, optimizer: torch.optim.Optimizer, counts: list[int], steps: int) -> None:
    """Run the same loop with the same penalty and the same two tasks written into it."""
    images, labels, _, _ = digits()
    model.train()
    for step in range(steps):
        model.pause()
        first = 64 * (step % 20)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[first : first + 64]), labels[first : first + 64])
        (loss + _SMALL * model.bn1.weight.abs().sum()).backward()
        counts[0] += 1
        optimizer.step()
        counts[1] += 1


def bound(width: int, pause: Pause) -> tuple[rebind.Binding, list[int]]:
    """Bind the CNN, with a loss patch and two tasks."""
    torch.manual_seed(0)
    model = PausingCNN(width, pause)
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.05, momentum=0.9)
    binding = rebind.bind(rebind.TorchEvaluator(train, optimizer, F.cross_entropy, model=model), model)
    binding.patch_loss(lambda loss: loss + _SMALL * model.bn1.weight.abs().sum())
    return binding, counted(binding)


def counted(binding: rebind.Binding) -> list[int]:
    """Let two tasks count the steps of a binding: before and after them."""
    counts = [0, 0]

    def count_before() -> None:
        counts[0] += 1

    def count_after() -> None:
        counts[1] += 1

    binding.before_step(count_before)
    binding.after_step(count_after)
    return counts


def loops(width: int, steps: int) -> dict[str, PausingWork]:
    """Give the bound loop and the one by hand; at first they are checked to be equal."""
    trained: dict[str, nn.Module] = {}

    def ours(pause: Pause) -> None:
        binding, counts = bound(width, pause)
        binding.train(max_steps=steps, progress=False)
        assert counts == [steps, steps]
        trained["ours"] = binding.model

    def theirs(pause: Pause) -> None:
        torch.manual_seed(0)
        plain, counts = PausingCNN(width, pause), [0, 0]
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
        train_by_hand(plain, optimizer, counts, steps)
        assert counts == [steps, steps]
        trained["theirs"] = plain

    ours(_go_on), theirs(_go_on)
    assert all(map(torch.equal, trained["ours"].parameters(), trained["theirs"].parameters()))
    return {_BY_HAND: theirs, "rebind": ours}


class Plain(Classifier):
    """With an optimizer that asks nothing of the trainer, and a pause before each batch."""

    def __init__(self, width: int, pause: Pause = _go_on) -> None:
        super().__init__(width)
        self.pause = pause

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let another training go on."""
        self.pause()

    def configure_optimizers(self) -> Any:
        """Give plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class ByHand(Plain):
    """The penalty and the two counts written into the module."""

    def __init__(self, width: int, pause: Pause = _go_on) -> None:
        super().__init__(width, pause)
        self.counts = [0, 0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Add the penalty."""
        return super().training_step(batch, batch_idx) + penalty(self)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Count."""
        self.counts[0] += 1

    def on_train_batch_end(self, *args: Any) -> None:
        """Count."""
        self.counts[1] += 1


def penalty(module: Classifier) -> Tensor:
    """Give a small number that depends on the weights."""
    return _SMALL * module.features[1].weight.abs().sum()


def one_step(width: int) -> dict[str, Timed]:
    """Give both ways to construct everything but the model and fit one step."""
    evaluator = rebind.LightningEvaluator(rebind.trace(pl.Trainer)(**_QUIET), rebind.trace(Digits)())
    held: list[Any] = [None]

    def renew() -> None:
        held[0] = Plain(width)

    def ours() -> None:
        with rebind.bind(evaluator, held[0]) as binding:
            binding.train(max_steps=1, progress=False)

    def theirs() -> None:
        pl.Trainer(**{**_QUIET, "max_steps": 1}).fit(held[0], datamodule=Digits())

    works = {_BY_HAND: theirs, "rebind": ours}
    return {name: timed(work, clock=time.process_time, before=renew) for name, work in works.items()}


def many_steps(width: int, steps: int) -> dict[str, PausingWork]:
    """Give both ways to train with a penalty and two counts; at first they are checked to be equal."""
    evaluator = rebind.LightningEvaluator(rebind.trace(pl.Trainer)(**_QUIET), rebind.trace(Digits)())
    final: dict[str, Tensor] = {}

    def ours(pause: Pause) -> None:
        torch.manual_seed(0)
        model = Plain(width, pause)
        with rebind.bind(evaluator, model) as binding:
            binding.patch_loss(lambda loss: loss + penalty(model))
            counts = counted(binding)
            binding.train(max_steps=steps, progress=False)
        assert counts == [steps, steps]
        final["ours"] = model.classifier.weight.detach()

    def theirs(pause: Pause) -> None:
        torch.manual_seed(0)
        model = ByHand(width, pause)
        pl.Trainer(**{**_QUIET, "max_steps": steps}).fit(model, datamodule=Digits())
        assert model.counts == [steps, steps]
        final["theirs"] = model.classifier.weight.detach()

    ours(_go_on), theirs(_go_on)
    assert torch.equal(final["ours"], final["theirs"])
    return {_BY_HAND: theirs, "rebind": ours}


class _Idle(torch.optim.Optimizer):
    """An optimizer whose step does nothing."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Any = None) -> None:
        """Do nothing."""


def step_tasks(turns: int, steps: int) -> Comparison:
    """Give what one step task adds to a step: with two tasks less without, in the same turn."""

    def only_steps(model: nn.Module, optimizers: Any, criterion: Any) -> None:
        for _ in range(steps):
            optimizers.step()

    def training(*, tasks: bool) -> Timed:
        model = nn.Linear(1, 1)
        optimizer = rebind.trace(_Idle)(model.parameters())
        binding = rebind.bind(rebind.TorchEvaluator(only_steps, optimizer, F.mse_loss, model=model), model)
        if tasks:
            binding.before_step(lambda: None)
            binding.after_step(lambda: None)
        return timed(lambda: binding.train(progress=False), clock=time.process_time)

    found = take_turns({"with": training(tasks=True), "without": training(tasks=False)}, turns, warm_up=2)
    added = tuple(
        (more - less) / steps / 2 for more, less in zip(found["with"], found["without"], strict=True)
    )
    return Comparison(family=_TASK, baseline="rebind", samples={"rebind": added})
