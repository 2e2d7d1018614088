"""Tasks that run once for each step of a training, however many optimizers make it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...binding.binding import Binding
from ...patching.handles import Revertible

Task = Callable[[], Any]


class LeadingSteps(Revertible):
    """Runs tasks around those optimizer steps by which a training gets further.

    Some algorithms count steps by a task. If it ran around each step of two optimizers that take turns, they
    would count twice as far as `max_steps` goes; around the first optimizer's steps only, they would count
    nothing while another one trains. So tasks run around the step of whichever optimizer gets ahead of all
    others in this training. With one optimizer that is every step, with two in turns the first one's; and
    tasks run as many times as the binding makes steps.

    Args:
        binding: The binding. Its tasks are registered here once; those that are added are called by them.
    """

    def __init__(self, binding: Binding) -> None:
        self._patches: list[tuple[tuple[Task, ...], tuple[Task, ...]]] = []
        # How many steps each optimizer has made in this training.
        self._made = [0] * len(binding.optimizers)
        self._handles = [
            handle
            for number in range(len(self._made))
            for handle in (
                binding.before_step(partial(self._before, number), optimizer=number),
                binding.after_step(partial(self._after, number), optimizer=number),
            )
        ]

    def add(self, before: Sequence[Task], after: Sequence[Task]) -> None:
        """Add tasks, which run in the order of their list; what is added last is outermost.

        Args:
            before: Run when the gradients are ready and the parameters unchanged.
            after: Run when the parameters have changed.
        """
        self._patches.append((tuple(before), tuple(after)))

    def begin_training(self) -> None:
        """Be told that a training begins, in which other optimizers may lead."""
        self._made = [0] * len(self._made)

    def revert(self) -> None:
        """Take all tasks away."""
        self._patches = []
        for handle in self._handles:
            handle.revert()

    def _before(self, number: int) -> None:
        if self._is_leading(number):
            for before, _ in reversed(self._patches):
                for task in before:
                    task()

    def _after(self, number: int) -> None:
        is_leading = self._is_leading(number)
        self._made[number] += 1
        if is_leading:
            for _, after in self._patches:
                for task in after:
                    task()

    def _is_leading(self, number: int) -> bool:
        return self._made[number] == max(self._made)
