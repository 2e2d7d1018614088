"""Write the inputs that the fuzzer starts from: `python write_seeds.py FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from rebind import TorchEvaluator
from rebind.serialization import dumps, pack

GOLDEN = Path(__file__).parent.parent / "golden"
sys.path.append(str(GOLDEN))
import golden_parts  # noqa: E402 - it is found there

SEPARATOR = b"\xff\xff"


class Canary:
    """Whoever unpickles it is told on."""

    def __reduce__(self):
        return sys.exit, ("a stranger's pickle was opened",)


def declared(dummy_input):
    """An evaluator of import paths."""
    return TorchEvaluator.from_fields(golden_parts.declared().fields() | {"dummy_input": dummy_input})


def parts_of(data):
    """Header text, data, and the manifest, layout, payload and tensor memory of a file."""
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    manifest = header.pop("__metadata__")["rebind.manifest"]
    told = {
        name: data[length + each["data_offsets"][0] : length + each["data_offsets"][1]]
        for name, each in header.items()
    }
    tensors = [name for name in told if name.startswith("tensor.")]
    layout, memory = told.get("layout", b"").rstrip(b"\0"), b"".join(told[name] for name in tensors)
    for name in tensors:
        layout = layout.replace(name.encode(), b"tensor.t.0")
        manifest = manifest.replace(f'"{name}"', '"tensor.t.0"')
    return data[8:length], data[length:], (manifest.encode(), layout, told["payload"].rstrip(b"\0"), memory)


def seeds():
    """Pairs of a name and an input."""
    files = {path.stem: path.read_bytes() for path in sorted(GOLDEN.glob("*.rebind"))}
    files["declared"] = dumps(declared(torch.arange(6.0).view(2, 3).t()))
    files["bare"] = dumps(declared(None))
    files["canary"] = pack({"canary": Canary(), "x": torch.arange(4)}, kind="t")
    files["small"] = pack([1], kind="t")
    for name, data in files.items():
        header, body, parts = parts_of(data)
        yield f"{name}.raw", b"r" + data
        yield f"{name}.header", b"h" + header + SEPARATOR + body
        yield f"{name}.parts", b"u" + SEPARATOR.join(parts)
        yield f"{name}.signed", b"s" + SEPARATOR.join(parts)


def main() -> None:
    """Write them all."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
