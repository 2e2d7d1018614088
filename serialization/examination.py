"""What can be said of a file, damaged or not, without opening it."""

from __future__ import annotations

import mmap
import os
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from ..evaluator_schema.errors import SerializationError
from .container import Container, check_limit, check_size, read_container
from .files import Path, map_for_reading, open_for_mapping
from .manifest import Manifest
from .signing import Keys, accepted_keys
from .tree import Branch, Tree, draw, readable_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
State = Literal["whole", "changed", "cut off", "not checked"]


class Problem(BaseModel):
    """Something that is wrong with a file.

    Attributes:
        error: The class of the error that opening the file would raise.
        message: What it would say.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    error: str
    message: str


class EntryState(BaseModel):
    """One entry of a file, and whether it is as it was written.

    Attributes:
        name: Its name.
        bytes: Its size, as the header tells it.
        state: What its digest says.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int
    state: State

    def __str__(self) -> str:
        return f"{self.name}  {readable_bytes(self.bytes)}, {self.state}"


class Examination(BaseModel):
    """What can be said of a file without opening it.

    Attributes:
        file_bytes: Its size.
        manifest: What it holds; None where the header does not tell.
        entries: The state of each entry, in file order.
        signature: The state of the signature, in words.
        verified: Whether one of the keys that were given made the signature.
        problems: Everything that is wrong, the first one first. An empty list stands for a file
            that is whole, and signed with a key where keys were given.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    file_bytes: int
    manifest: Manifest | None = None
    entries: tuple[EntryState, ...] = ()
    signature: str = "unknown"
    verified: bool = False
    problems: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        tree = self.manifest.tree() if self.manifest else Branch("not readable", ())
        branches = [branch for branch in tree.below if not _is_about_entries(branch)]
        return draw(Branch(tree.line, (*branches, *self._branches())))

    def _branches(self) -> Iterator[Tree]:
        yield f"signature: {self.signature}"
        if self.entries:
            total = readable_bytes(sum(entry.bytes for entry in self.entries))
            yield Branch(f"entries: {total}", tuple(map(str, self.entries)))
        yield f"file: {readable_bytes(self.file_bytes)} ({self.file_bytes:,} bytes)"
        if self.problems:
            yield Branch("problems", tuple(f"{each.error}: {each.message}" for each in self.problems))


def examine(
    path: Path,
    key: Keys | None = None,
    *,
    max_bytes: int | None = None,
    verify_digests: bool = True,
) -> Examination:
    """Say what can be said of a file. Nothing in it is unpickled, and nothing of its author's imported.

    Unlike `inspect` and `verify` this goes on after the first problem, and reports all of them.

    Args:
        path: The file.
        key: The key or keys one of which should have signed it.
        max_bytes: Do not look into more than this.
        verify_digests: Check that the entries are as they were written, which reads the whole file.

    Raises:
        OSError: The file cannot be opened.
        InvalidKeyError: The key is none.
    """
    keys = accepted_keys(key)
    descriptor = open_for_mapping(path)
    try:
        size = os.fstat(descriptor).st_size
        problems: list[Problem] = []
        data = _noted(problems, lambda: map_for_reading(descriptor))
    finally:
        os.close(descriptor)
    container = None if data is None else _noted(problems, lambda: _readable(data, max_bytes))
    if container is None:
        return Examination(file_bytes=size, problems=tuple(problems))
    _noted(problems, lambda: check_size(size, container.header.file_bytes))
    entries = tuple(_states(container, problems, check=verify_digests))
    verified = bool(_noted(problems, lambda: container.verify_signature(keys)))
    return Examination(
        file_bytes=size,
        manifest=container.manifest,
        entries=entries,
        signature=_signature(container.manifest, tried=bool(keys), verified=verified),
        verified=verified,
        problems=tuple(problems),
    )


def _readable(data: mmap.mmap, max_bytes: int | None) -> Container:
    check_limit(len(data), max_bytes)
    return read_container(memoryview(data))


def _states(container: Container, problems: list[Problem], *, check: bool) -> Iterator[EntryState]:
    header = container.header
    for name, slot in header.slots.items():
        state: State = "not checked"
        if header.length + slot.stop > container.bytes_found:
            state = "cut off"
        elif check:
            before = len(problems)
            _noted(problems, partial(container.verify, [name]))
            state = "whole" if len(problems) == before else "changed"
        yield EntryState(name=name, bytes=slot.stop - slot.start, state=state)


def _noted(problems: list[Problem], check: Callable[[], T]) -> T | None:
    """What a check returns; None where it fails, which becomes a problem."""
    try:
        return check()
    except SerializationError as error:
        problems.append(Problem(error=type(error).__name__, message=str(error)))
        return None


def _signature(manifest: Manifest, *, tried: bool, verified: bool) -> str:
    if not manifest.signed:
        return "unsigned"
    if not tried:
        return f"{manifest.signature}, not verified: that needs the key"
    return f"{manifest.signature}, {'verified' if verified else 'NOT verified'}"


def _is_about_entries(branch: Tree) -> bool:
    return isinstance(branch, Branch) and branch.line.startswith("entries: ")
