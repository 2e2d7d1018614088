"""An evaluator to bytes, files and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from ..evaluator_schema.errors import TruncatedError
from .content import draft_evaluator
from .files import Path, map_privately, open_for_mapping, write_atomically
from .opening import Opened, open_bytes
from .rehydration import Content
from .seals import VerifyTensors, must_verify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..evaluator_schema.evaluator import Evaluator
    from .manifest import Manifest
    from .mapped import MapLocation
    from .signing import Keys
    from .writing import Draft


def dumps(evaluator: Evaluator, key: Keys | None = None) -> bytes:
    """The bytes of an evaluator.

    Args:
        evaluator: The evaluator.
        key: Signs the bytes: at least 32 bytes, or a `SigningKey`. Of several, the first one signs.

    Raises:
        UnresolvedParametersError: Parameters have no names, so that no other model could be bound.
        NotSerializableError: Something in it cannot be written; the message says what and where.
    """
    return draft_evaluator(evaluator, key).to_bytes()


def save(evaluator: Evaluator, path: Path, key: Keys | None = None, *, durable: bool = True) -> None:
    """Write an evaluator to a file, whole or not at all, readable by its owner only.

    The tensors are written from where they lie, without a copy.

    Args:
        evaluator: The evaluator.
        path: The file. What is there is replaced at once, when the new one is complete.
        key: Signs the file.
        durable: Wait until the disk has it. Without that, the file may be incomplete after a loss of
            power, which is told when it is opened.

    Raises:
        UnresolvedParametersError: Parameters have no names.
        NotSerializableError: Something in the evaluator cannot be written.
        SaveError: The file cannot be written. What was there is untouched.
    """
    draft: Draft = draft_evaluator(evaluator, key)
    write_atomically(path, draft.write, durable=durable)


def loads(
    data: bytes | bytearray | memoryview,
    key: Keys | None = None,
    trusted: bool = False,  # noqa: FBT001, FBT002 - part of the contract
    *,
    map_location: MapLocation = None,
    allow: Iterable[str] = (),
    max_bytes: int | None = None,
) -> Evaluator:
    """The evaluator in some bytes.

    Nothing is unpickled before structure, digests, signature and environment are checked. An
    evaluator whose callables are all import paths holds no pickle, and opens without key and trust.

    Args:
        data: What `dumps` gave.
        key: The key, or several, one of which must have signed the bytes.
        trusted: Open pickled code without a key: it can do anything. A key that is given is
            verified all the same.
        map_location: Where tensors go, as in `torch.load`; the CPU if it does not say.
        allow: Modules, beyond those of torch, Lightning, transformers and rebind, that the import
            paths of an evaluator without pickled code may lead to.
        max_bytes: Refuse more than this.

    Raises:
        SerializationError: One of its subclasses: what it is and what to do. An import path to a
            module that is not allowed is an `UntrustedPayloadError`, which names the module and the
            field; one that leads nowhere is an `InvalidPayloadError`.
    """
    opened = open_bytes(memoryview(data), key=key, trusted=trusted, max_bytes=max_bytes)
    return Content(opened, allow).evaluator(opened.reader(map_location, in_place=False))


def load(
    path: Path,
    key: Keys | None = None,
    trusted: bool = False,  # noqa: FBT001, FBT002 - part of the contract
    *,
    map_location: MapLocation = None,
    allow: Iterable[str] = (),
    max_bytes: int | None = None,
    verify_tensors: bool = True,
) -> Evaluator:
    """The evaluator in a file. Its tensors are the mapped file, copied where they are written to.

    Args:
        path: The file.
        key: As in `loads`.
        trusted: As in `loads`.
        map_location: As in `loads`.
        allow: As in `loads`.
        max_bytes: As in `loads`.
        verify_tensors: Check the digests of the tensors too, which reads the whole file. Without
            it, opening takes the same short time at any size, and a change to a tensor's values
            goes unnoticed; everything else is still checked.

    Raises:
        OSError: The file cannot be opened.
        SerializationError: One of its subclasses: what it is and what to do. An import path to a
            module that is not allowed is an `UntrustedPayloadError`, which names the module and the
            field; one that leads nowhere is an `InvalidPayloadError`.
    """
    with OpenedEvaluator(
        path,
        key,
        trusted=trusted,
        allow=allow,
        max_bytes=max_bytes,
        verify_tensors=verify_tensors,
    ) as opened:
        return opened.rehydrate(map_location=map_location)


def open_evaluator(
    path: Path,
    key: Keys | None = None,
    *,
    trusted: bool = False,
    allow: Iterable[str] = (),
    max_bytes: int | None = None,
    verify_tensors: VerifyTensors = True,
) -> OpenedEvaluator:
    """Check a file once, to take a fresh evaluator from it many times.

    Args:
        path: The file.
        key: The key or keys one of which must have signed it.
        trusted: Open pickled code without a key: it can do anything.
        allow: Modules that import paths may lead to, beyond the default ones.
        max_bytes: Refuse a larger file.
        verify_tensors: Check the digests of the tensors too. `"unless sealed"` leaves that out for a
            file in memory that is sealed against every change (`memfd_create`, on Linux): its tensors
            are as whoever sealed it has written them, and whose signature it bears.

    Raises:
        OSError: The file cannot be opened.
        SerializationError: One of its subclasses: what it is and what to do.
    """
    return OpenedEvaluator(
        path, key, trusted=trusted, allow=allow, max_bytes=max_bytes, verify_tensors=verify_tensors
    )


class OpenedEvaluator:
    """A file that was checked once, and gives a fresh evaluator each time it is asked.

    The file stays open until `close`, or the end of the `with` block; replacing it by another one
    changes nothing here. Changing it in place does, as for every mapped file.

    Args:
        path: The file.
        key: The key or keys one of which must have signed it.
        trusted: Open pickled code without a key: it can do anything.
        allow: Modules that import paths may lead to, beyond the default ones.
        max_bytes: Refuse a larger file.
        verify_tensors: Whether to read all tensors to check that they are as they were written; as in
            `open_evaluator`.

    Attributes:
        manifest: What the file holds.
        digest: An address for its whole content: equal digests, equal files.
    """

    manifest: Manifest
    digest: str

    def __init__(
        self,
        path: Path,
        key: Keys | None = None,
        *,
        trusted: bool = False,
        allow: Iterable[str] = (),
        max_bytes: int | None = None,
        verify_tensors: VerifyTensors = True,
    ) -> None:
        self._descriptor: int | None = open_for_mapping(path)
        try:
            self._opened: Opened = open_bytes(
                memoryview(map_privately(self._descriptor)),
                key=key,
                trusted=trusted,
                max_bytes=max_bytes,
                verify_tensors=must_verify(self._descriptor, verify_tensors),
            )
        except BaseException:
            self.close()
            raise
        self._content = Content(self._opened, allow)
        self.manifest = self._opened.manifest
        self.digest = self._opened.container.header.seal

    def rehydrate(self, *, map_location: MapLocation = None) -> Evaluator:
        """A fresh evaluator over a private mapping: what is written to it shows in no other one.

        Args:
            map_location: As in `loads`.

        Raises:
            ValueError: This was closed.
            SerializationError: The content does not come back.
        """
        if self._descriptor is None:
            raise ValueError("The evaluator's file was closed; open it again.")
        data = memoryview(map_privately(self._descriptor))
        expected = self._opened.container.header.file_bytes
        if len(data) != expected:
            raise TruncatedError(
                f"The file was changed while it was open: it has {len(data):,} bytes, and had "
                f"{expected:,}. Replace files by renaming another one over them."
            )
        return self._content.evaluator(self._opened.over(data).reader(map_location, in_place=True))

    def close(self) -> None:
        """Close the file. Evaluators taken from it stay as they are."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A constructor that raised early leaves no attribute behind.
        if getattr(self, "_descriptor", None) is not None:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._descriptor is None else "open"
        return f"OpenedEvaluator({self.manifest.kind}, {self.digest[:16]}, {state})"

    def __reduce__(self) -> Any:
        raise TypeError("an opened file is not pickled; open its path in the other process")
