"""The manifest: what a file holds, readable without opening any of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from .tree import Branch, Tree, draw, printable, readable_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class TensorInfo(BaseModel):
    """One tensor of a file.

    Attributes:
        name: The field that it belongs to, and its number in it: `dummy_input.0`.
        dtype: As torch names it: `float32`.
        shape: Its sizes.
        bytes: What its elements take. Views of the same memory each count in full.
        device: Where it was when it was written.
        entry: The entry that holds its memory; None where it has no elements.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: str
    shape: tuple[Count, ...]
    bytes: Count
    device: str
    entry: str | None

    def __str__(self) -> str:
        place = "" if self.device == "cpu" else f", from {self.device}"
        return f"{self.name}  {self.dtype} {list(self.shape)}, {readable_bytes(self.bytes)}{place}"


class Manifest(BaseModel):
    """What a file holds: its kind, contents, versions and digests.

    Attributes:
        format: The version of the file format.
        content: Whether an evaluator or some other value is inside.
        kind: The evaluator's class, as in `TorchEvaluator`; of another value, what it is called.
        payload: `pickle` streams, or the `json` of an evaluator that needs no pickle.
        versions: Of `python`, `rebind`, `torch` and the other libraries that wrote the file.
        python_implementation: As in `sys.implementation.name`.
        summary: What the evaluator says of itself.
        fields: The fields that are pickled, in order; none means that there is no pickle.
        code_fields: Those of them whose values only pickled code can carry.
        imports: For each field, the names (`module:qualname`) that unpickling it looks up.
        tensors: The tensors in the order of writing, up to a bound.
        tensors_not_listed: How many more there are.
        data_bytes: The size of all entries together.
        digests: The BLAKE3 digest of every entry.
        signed: Whether the file carries a signature. Only opening it with a key verifies that.
        key_id: The name of the key that signed; empty if the key has none, None if unsigned.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    format: Count
    content: Literal["evaluator", "value"]
    kind: str
    payload: Literal["pickle", "json"]
    versions: dict[str, str]
    python_implementation: str
    summary: dict[str, JsonValue] = {}
    fields: tuple[str, ...] = ()
    code_fields: tuple[str, ...] = ()
    imports: dict[str, tuple[str, ...]] = {}
    tensors: tuple[TensorInfo, ...] = ()
    tensors_not_listed: Count = 0
    data_bytes: Count = 0
    digests: dict[str, Digest] = {}
    signed: bool = False
    key_id: str | None = None

    @property
    def tensor_bytes(self) -> int:
        """The size of the listed tensors, each counted in full."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def signature(self) -> str:
        """The state of the signature, in words."""
        if not self.signed:
            return "unsigned"
        return f"signed with key {self.key_id!r}" if self.key_id else "signed"

    def __repr__(self) -> str:
        code = ", ".join(self.code_fields) or "none"
        return printable(
            f"Manifest({self.kind}, format {self.format}, {self.signature}, pickled code: {code}, "
            f"{len(self.tensors) + self.tensors_not_listed} tensors, "
            f"{readable_bytes(self.data_bytes)})"
        )

    def __str__(self) -> str:
        return draw(self.tree())

    def tree(self) -> Branch:
        """The manifest as a tree of lines."""
        return Branch(f"{self.kind} ({self.signature})", tuple(self._branches()))

    def _branches(self) -> Iterator[Tree]:
        yield f"format {self.format}, written by {self._writers()}"
        yield f"pickled code: {', '.join(self.code_fields) or 'none, opens without trust'}"
        if self.summary:
            yield Branch("summary", tuple(_branch(key, of) for key, of in self.summary.items()))
        if self.tensors:
            count = len(self.tensors) + self.tensors_not_listed
            more = self.tensors_not_listed
            yield Branch(
                f"tensors: {count}",
                (*map(str, self.tensors), *([f"... and {more} more"] if more else [])),
            )
        yield Branch(
            f"entries: {readable_bytes(self.data_bytes)}",
            tuple(f"{name}  blake3 {value[:16]}..." for name, value in self.digests.items()),
        )

    def _writers(self) -> str:
        names = {"python": "Python"}
        return ", ".join(f"{names.get(name, name)} {of}" for name, of in self.versions.items())


def _branch(key: str, value: Any) -> Tree:
    if isinstance(value, dict) and value:
        return Branch(key, tuple(_branch(name, of) for name, of in value.items()))
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return Branch(key, tuple(_branch(str(number), of) for number, of in enumerate(value)))
    if isinstance(value, list):
        return f"{key}: {', '.join(map(str, value)) or 'none'}"
    return f"{key}: {value}"
