"""The conditions under which a trial runs: the same in every pool, and restored afterwards."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def _set_default_device(name: str) -> None:
    # None instead of "cpu": a device that is set costs time in every call of torch.
    torch.set_default_device(None if name == "cpu" else name)


def _deterministic() -> list[bool]:
    return [
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    ]


def _set_deterministic(value: list[bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _get_matmul_precision() -> str | None:
    # Of old and new settings that do not say the same, torch tells no old one.
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set_matmul_precision(value: str | None) -> None:
    if value is not None:
        torch.set_float32_matmul_precision(value)


def _flag(name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """How to read and to set a flag of `torch.backends`."""
    path, _, flag = f"backends.{name}".rpartition(".")
    backend = attrgetter(path)(torch)
    return lambda: getattr(backend, flag), lambda value: setattr(backend, flag, value)


# Process-wide settings of torch that change results: how to read and how to set each of them.
# Some set others, too, which come later: the old precision that of matmul, a general one what inherits it.
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "default_dtype": (
        lambda: str(torch.get_default_dtype()).removeprefix("torch."),
        lambda name: torch.set_default_dtype(getattr(torch, name)),
    ),
    "default_device": (lambda: str(torch.get_default_device()), _set_default_device),
    "deterministic_algorithms": (_deterministic, _set_deterministic),
    "float32_matmul_precision": (_get_matmul_precision, _set_matmul_precision),
    **{
        name: _flag(name)
        for name in (
            "fp32_precision",
            "cudnn.fp32_precision",  # that of all CUDA
            "cudnn.conv.fp32_precision",
            "cudnn.rnn.fp32_precision",
            "cuda.matmul.fp32_precision",
            "mkldnn.fp32_precision",
            "mkldnn.matmul.fp32_precision",
            "mkldnn.conv.fp32_precision",
            "mkldnn.rnn.fp32_precision",
            "cudnn.benchmark",
            "cudnn.deterministic",
        )
    },
}


def current_settings() -> dict[str, Any]:
    """This process's settings of torch, as JSON can carry them."""
    return {name: read() for name, (read, _) in _SETTINGS.items()}


@contextmanager
def trial_conditions(threads: int, settings: Mapping[str, Any]) -> Iterator[None]:
    """Run a block under given conditions, and put those of before back.

    Threads and settings are as given; gradients are on and autocast is off, whatever the caller is
    in the middle of.

    Args:
        threads: How many threads torch may use.
        settings: What `current_settings` returned in the process that asks for the trial.
    """
    before, threads_before = current_settings(), torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.callback(lambda: _change(current_settings(), before))
        stack.callback(_set_threads, threads_before)
        _set_threads(threads)
        _change(before, settings)
        yield


def _set_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _change(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if current == wanted:
        return
    for name, value in wanted.items():
        read, write = _SETTINGS[name]
        if read() != value:  # by now
            write(value)
