"""Frames over a socket: a small JSON header, then a body of bytes."""

from __future__ import annotations

import ctypes
import json
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pool import BytesLike

_PREFIX = struct.Struct("!IQ")  # the lengths of header and body
_READ_AT_ONCE = 1 << 16  # bytes; a larger body is read to where it stays
_PARTS_AT_ONCE = 64
_LARGEST_HEADER, _LARGEST = 1 << 26, 1 << 40  # longer than any real message: noise on the wire
_ALIGNMENT = 64
_NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    header: Mapping[str, Any]
    body: BytesLike = b""

    def parts(self) -> tuple[bytes, BytesLike]:
        """The bytes to send, in order; the body is not copied."""
        header = json.dumps(dict(self.header)).encode()
        return _PREFIX.pack(len(header), len(self.body)) + header, self.body


def send(sock: socket.socket, frame: Frame) -> None:
    """Send a whole frame on a blocking socket."""
    parts = frame.parts()
    sent = sock.sendmsg(parts)  # at once, so that the other end wakes up once
    for part in parts:
        if sent < len(part):
            sock.sendall(memoryview(part)[sent:])
        sent = max(sent - len(part), 0)


class Inbox:
    """Puts frames together from whatever arrives, a piece at a time."""

    def __init__(self) -> None:
        self._read = bytearray(_READ_AT_ONCE)  # what has arrived, up to `_end`, and is not of `_body`
        self._end = 0
        self._header: Any = None
        self._body: memoryview | None = None
        self._rest = _NOTHING  # what is still to be filled of `_body`

    @property
    def begun(self) -> bool:
        """Whether a part of the next frame has arrived."""
        return self._body is not None or self._end > 0

    def receive(self, sock: socket.socket) -> Frame:
        """Read on until a frame is complete.

        Raises:
            EOFError: The other end is gone.
            BlockingIOError: The socket does not block and the frame is not complete yet; call
                again when there is more.
        """
        while True:
            if self._body is None:
                self._begin_body()
            if self._body is not None and not len(self._rest):
                frame = Frame(self._header, self._body)
                self._header, self._body, self._rest = None, None, _NOTHING  # nothing of it is kept
                return frame
            into = self._rest if self._body is not None else memoryview(self._read)[self._end :]
            count = sock.recv_into(into)
            if not count:
                raise EOFError("the other end of the channel is closed")
            if self._body is not None:
                self._rest = self._rest[count:]
            else:
                self._end += count

    def _begin_body(self) -> None:
        """Once the header has arrived, go over to the body, with what has arrived of it."""
        if self._end < _PREFIX.size:
            return
        header, body = _PREFIX.unpack_from(self._read)
        if header > _LARGEST_HEADER or body > _LARGEST:
            raise EOFError("the channel carries something else than frames")
        start = _PREFIX.size + header
        if start > len(self._read):
            self._read = self._read + bytes(start - len(self._read))
        if self._end < start:
            return
        self._header = json.loads(self._read[_PREFIX.size : start])
        arrived = self._read[start : min(start + body, self._end)]
        after = self._read[start + len(arrived) : self._end]  # of the next frame
        if len(self._read) > _READ_AT_ONCE >= len(after):
            self._read = bytearray(_READ_AT_ONCE)
        self._read[: len(after)] = after
        self._end = len(after)
        self._body = _aligned(body)
        self._body[: len(arrived)] = arrived
        self._rest = self._body[len(arrived) :]


def _aligned(size: int) -> memoryview:
    """So many bytes of memory where tensors may lie: torch aligns its own in the same way."""
    memory = bytearray(size + _ALIGNMENT)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % _ALIGNMENT
    return memoryview(memory)[start : start + size]


class Channel:
    """The parent's end of a worker's private socket; it never waits for the worker."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003 - it takes no keyword
        self.sock = sock
        self._inbox = Inbox()
        self._outbox: deque[memoryview] = deque()

    @property
    def sending(self) -> bool:
        """Whether there is something that the worker has not taken yet."""
        return bool(self._outbox)

    @property
    def receiving(self) -> bool:
        """Whether a message of the worker has arrived in part."""
        return self._inbox.begun

    def send(self, frame: Frame) -> None:
        """Queue a frame; `flush` sends it."""
        self._outbox.extend(memoryview(part) for part in frame.parts() if len(part))

    def flush(self) -> None:
        """Send as much as the worker takes.

        Raises:
            OSError: The worker is gone.
        """
        while self._outbox:
            try:
                count = self.sock.sendmsg(islice(self._outbox, _PARTS_AT_ONCE))
            except BlockingIOError:
                return
            while self._outbox and count >= len(self._outbox[0]):
                count -= len(self._outbox.popleft())
            if count:
                self._outbox[0] = self._outbox[0][count:]

    def receive(self) -> Frame | None:
        """Return the next frame, or None where it has not arrived in full.

        Raises:
            EOFError: The worker is gone.
        """
        try:
            return self._inbox.receive(self.sock)
        except BlockingIOError:
            return None
        except (ConnectionError, ValueError) as error:
            raise EOFError(str(error)) from error

    def close(self) -> None:
        """Close both directions, also where a forked process holds a copy of the socket."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
