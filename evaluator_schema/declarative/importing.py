"""Import paths: from a callable to `module:qualname`, and back under an allow-list."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..checking.signatures import suggest
from ..errors import ImportPathError

# What may be imported by name without being asked for: code that everybody here has installed.
DEFAULT_ALLOW = ("torch", "pytorch_lightning", "lightning", "transformers", "rebind")


def import_path(value: Any) -> str | None:
    """Give the import path of a class, function or module-level object, or None if it has none.

    The path is the shortest public one: `torch.optim:SGD`, not `torch.optim.sgd:SGD`. An object of
    `__main__`, a closure and a lambda have none, since another process would not find them.
    """
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module is None and isinstance(getattr(value, "__self__", None), ModuleType):
        module = value.__self__.__name__  # a function written in C, as `math.sqrt`
    if not isinstance(module, str) or not isinstance(qualname, str) or module == "__main__":
        return _torch_path(value)
    if "<" in qualname or not _leads_to(module, qualname, value):
        return _torch_path(value)
    if not is_allowed(module, ()):
        return f"{module}:{qualname}"
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        public = ".".join(parts[:length])
        if not parts[length - 1].startswith("_") and _leads_to(public, qualname, value):
            return f"{public}:{qualname}"
    return f"{module}:{qualname}"


def _torch_path(value: Any) -> str | None:
    """Find a C function of torch, such as `torch.relu`, which does not tell its module."""
    name = getattr(value, "__name__", None)
    if not isinstance(name, str) or isinstance(value, type):
        return None
    for module in ("torch", "torch.nn.functional"):
        if getattr(sys.modules.get(module), name, None) is value:
            return f"{module}:{name}"
    return None


def _leads_to(module: str, qualname: str, value: Any) -> bool:
    found: Any = sys.modules.get(module)
    if found is None:
        return False
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is value or (found is not None and unwrapped(found) is value)


def unwrapped(value: Any) -> Any:
    """Give the target of a traced callable, and anything else as it is."""
    return getattr(value, "_rebind_target", value)


def is_allowed(module: str, allow: Iterable[str]) -> bool:
    """Tell whether a module is on the default allow-list or under one of the prefixes `allow`.

    `"*"` among the prefixes allows everything: for what was signed, or is trusted.
    """
    return is_under(module, DEFAULT_ALLOW) or is_under(module, allow)


def is_under(module: str, prefixes: Iterable[str]) -> bool:
    """Tell whether a module is, or is inside, one of those that the prefixes name."""
    return any(prefix in ("*", module) or module.startswith(f"{prefix}.") for prefix in prefixes)


def resolve(path: str, allow: Iterable[str] = ()) -> Any:
    """Import what `module:qualname` names.

    Args:
        path: The import path. A nested class is `module:Outer.Inner`.
        allow: Prefixes of modules that may be imported beyond `DEFAULT_ALLOW`.

    Raises:
        ImportPathError: The path is malformed, its module is not allowed or not there, the name is not in
            it, or what it names is at home in a module that is not allowed (an alias such as
            `logging:os.system`).
    """
    allow = tuple(allow)
    module, colon, qualname = path.partition(":")
    if (
        not colon
        or not module
        or not qualname
        or not all(map(_is_name, (*module.split("."), *qualname.split("."))))
    ):
        raise ImportPathError(
            f"{path!r} is no import path; write 'module:qualname', for instance 'torch.optim:SGD'"
        )
    _require_allowed(path, module, allow)
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ImportPathError(
            f"{path!r} cannot be imported ({error}); {_how_to_install(error)}, or put its folder on sys.path"
        ) from error
    for part in qualname.split("."):
        holder = found
        try:
            found = getattr(holder, part)
        except AttributeError:
            near = suggest(part, [name for name in dir(holder) if not name.startswith("_")])
            raise ImportPathError(f"{path!r}: {module} has no {part!r}{near}") from None
        except Exception as error:
            raise ImportPathError(f"{path!r}: {part!r} cannot be read ({error})") from error
        if isinstance(found, ModuleType):  # what another module imported is reached through that module
            _require_allowed(path, found.__name__, allow)
    found = unwrapped(found)
    if isinstance(found, ModuleType):
        raise ImportPathError(f"{path!r} names a module; name a class or a function in it")
    home = getattr(found, "__module__", None) or module
    if isinstance(getattr(found, "__self__", None), ModuleType):
        home = found.__self__.__name__
    if home not in _TORCH_C_HOMES:
        _require_allowed(path, home, allow)
    return found


def _how_to_install(error: BaseException) -> str:
    """Say which of our extras brings a missing package, if one does."""
    extra = _EXTRAS.get(getattr(error, "name", None) or "")
    return f"pip install 'rebind[{extra}]'" if extra else "install the package"


_EXTRAS = {"transformers": "transformers", "accelerate": "transformers"}


def _is_name(part: str) -> bool:
    """Tell a public way in from one through the inside of objects, such as `__globals__`."""
    return part.isidentifier() and not (part.startswith("__") and part.endswith("__"))


# Where functions that torch writes in C say that they live.
_TORCH_C_HOMES = frozenset({"torch._C._nn", "torch._VariableFunctionsClass"})


def _require_allowed(path: str, module: str, allow: tuple[str, ...]) -> None:
    if not is_allowed(module, allow):
        top = module.partition(".")[0]
        raise ImportPathError(
            f"{path!r} leads to module {module!r}, which is not on the allow-list; if you trust it, "
            f"allow it: allow=[{top!r}], or context={{'allow': [{top!r}]}} in model_validate_json"
        )
