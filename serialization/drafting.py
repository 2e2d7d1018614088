"""From fields to a draft of a file: payload, tensors and manifest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

from ..evaluator_schema.errors import CorruptedError, NotSerializableError
from .environment import current_versions
from .format import FORMAT, PAYLOAD
from .imports import library_versions
from .manifest import Manifest
from .memory import MemoryWriter
from .pickling import pickle_fields
from .signing import Keys, signing_key
from .strict_json import parse_json
from .writing import Draft, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def draft_pickled(
    fields: Mapping[str, Any],
    *,
    content: Literal["evaluator", "value"],
    kind: str,
    key: Keys | None,
    summary: Mapping[str, Any],
    code_fields: Iterable[str],
) -> Draft:
    """A file whose payload is the pickle of each field.

    Args:
        fields: The values by name. They may share objects.
        content: Whether they make an evaluator.
        kind: What they make, for the manifest.
        key: Signs the file.
        summary: What else the manifest tells, as JSON values.
        code_fields: The fields that need the pickle; the others just come along.

    Raises:
        NotSerializableError: Naming the field, and what in it cannot be written.
    """
    memory = MemoryWriter(kind)
    pickled = pickle_fields(fields, memory)
    used = library_versions(name for names in pickled.imports.values() for name in names)
    return _draft(
        pickled.stream,
        memory,
        key,
        content=content,
        kind=kind,
        payload="pickle",
        versions={**(here := current_versions()), **used, **here},
        summary=summary,
        fields=tuple(fields),
        code_fields=tuple(code_fields),
        imports=pickled.imports,
    )


def draft_declared(
    text: str,
    memory: MemoryWriter,
    *,
    kind: str,
    key: Keys | None,
    summary: Mapping[str, Any],
    imports: Mapping[str, tuple[str, ...]],
) -> Draft:
    """A file whose payload is the JSON of an evaluator, without any pickle.

    Raises:
        NotSerializableError: The JSON is none that would be read again: nested too deeply, say.
    """
    try:
        parse_json(
            text, "evaluator's JSON", cure="Nest fewer lists and dictionaries, or put them into tensors."
        )
    except CorruptedError as error:
        raise NotSerializableError(str(error)) from None
    return _draft(
        text.encode(),
        memory,
        key,
        content="evaluator",
        kind=kind,
        payload="json",
        versions=current_versions(),
        summary=summary,
        imports=imports,
    )


def _draft(content_bytes: bytes, memory: MemoryWriter, key: Keys | None, **fields: Any) -> Draft:
    entries, tensors, not_listed = memory.finish()
    try:
        manifest = Manifest(
            format=FORMAT,
            python_implementation=sys.implementation.name,
            tensors=tuple(tensors),
            tensors_not_listed=not_listed,
            **fields,
        )
    except ValueError as error:
        raise NotSerializableError(
            f"What the manifest should say is not JSON. Make the summary of JSON values only: {error}"
        ) from None
    # The payload comes last: tensors then start at the first aligned byte.
    return Draft([*entries, Entry(PAYLOAD, (content_bytes,))], manifest, signing_key(key))
