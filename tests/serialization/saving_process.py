"""What the processes of the saving tests do; importable by name, so that they can be started."""

from __future__ import annotations

import torch

from rebind.serialization import pack_file


def content(version):
    """A value that tells its version in every part."""
    return {"version": version, "data": torch.full((200_000,), version, dtype=torch.int32)}


def save_for_ever(path, durable, started):
    """Save one version after the other until killed."""
    version = 0
    while True:
        version += 1
        pack_file(content(version), path, kind="t", durable=durable)
        if version == 1:
            started.send("saved")


def save_many(path, count, first):
    """Save versions that no other process writes."""
    for version in range(first, first + count):
        pack_file(content(version), path, kind="t", durable=False)


def read_forked(path):
    """Open in a forked child what the parent has saved with threads."""
    from rebind.serialization import unpack_file

    assert unpack_file(path, trusted=True)["version"] == 5
