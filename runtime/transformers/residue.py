"""Taking a Trainer off a model again: transformers and accelerate leave marks, methods and hooks behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.nn import Module

from ..binding.devices import device_of

# What they write into modules: for mixed precision, checkpointed activations, noise in embeddings, compiling.
_WRITTEN = (
    "_is_accelerate_prepared",
    "_original_forward",
    "forward",
    "_gradient_checkpointing_func",
    "gradient_checkpointing",
    "_require_grads_hook",
    "_require_grads_hooks",
    "neftune_noise_alpha",
    "_is_torch_compile",
    "_compile_kwargs",  # by Lightning, where it was imported: it replaces torch.compile
)
# And into the model's configuration: whether to cache, and the special tokens of a tokenizer.
_CONFIGURED = ("use_cache", "bos_token_id", "eos_token_id", "pad_token_id")
_ABSENT = object()


@contextmanager
def without_residue(model: Module) -> Iterator[None]:
    """Leave in a model nothing of the Trainers that it meets in the block, and leave it on its device."""
    device = device_of(model)
    held: list[tuple[dict[str, Any], Mapping[str, Any]]] = []
    for module in model.modules():
        held.append((vars(module), _of(vars(module), _WRITTEN)))
        for name in ("config", "generation_config"):
            config = vars(module).get(name)
            if hasattr(config, "__dict__"):
                held.append((vars(config), _of(vars(config), _CONFIGURED)))
    noisy = {id(module) for module in model.modules() if _has_noise(module)}
    try:
        yield
    finally:
        for module in model.modules():
            _take_hooks(module, keeps_noise=id(module) in noisy)
        for attributes, before in held:
            for name, value in before.items():
                if value is _ABSENT:
                    attributes.pop(name, None)
                else:
                    attributes[name] = value
        if device_of(model) != device:
            model.to(device)


def _of(attributes: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: attributes.get(name, _ABSENT) for name in names}


def _take_hooks(module: Module, *, keeps_noise: bool) -> None:
    """Take away the hooks that checkpointing and noise need; a Trainer that failed leaves both."""
    for hook in vars(module).get("_require_grads_hooks") or ():
        hook.remove()
    if not keeps_noise:
        for key, hook in list(module._forward_hooks.items()):
            if _adds_noise(hook):
                del module._forward_hooks[key]


def _has_noise(module: Module) -> bool:
    return any(map(_adds_noise, module._forward_hooks.values()))


def _adds_noise(hook: Any) -> bool:
    return getattr(hook, "__name__", None) == "neftune_post_forward_hook"
