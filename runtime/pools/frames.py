"""Frames over a socket: a small JSON header, then a body of bytes."""

from __future__ import annotations

import json
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pool import BytesLike

_PREFIX = struct.Struct("!IQ")  # the lengths of header and body
_LARGEST = 1 << 40  # longer than any real message: such a length is noise on the wire


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
    for part in frame.parts():
        sock.sendall(part)


class Inbox:
    """Puts frames together from whatever arrives, a piece at a time."""

    _head: bytearray
    _body: bytearray | None
    _rest: memoryview  # what is still to be filled
    _reading_body: bool

    def __init__(self) -> None:
        self._expect_prefix()

    @property
    def begun(self) -> bool:
        """Whether a part of the next frame has arrived."""
        return self._body is not None or len(self._rest) < _PREFIX.size

    def receive(self, sock: socket.socket) -> Frame:
        """Read on until a frame is complete.

        Raises:
            EOFError: The other end is gone.
            BlockingIOError: The socket does not block and the frame is not complete yet; call
                again when there is more.
        """
        while True:
            while len(self._rest):
                count = sock.recv_into(self._rest)
                if not count:
                    raise EOFError("the other end of the channel is closed")
                self._rest = self._rest[count:]
            if self._body is None:
                self._expect_header()
            elif not self._reading_body:
                self._reading_body = True
                self._rest = memoryview(self._body)
            else:
                frame = Frame(json.loads(self._head), self._body)
                self._expect_prefix()
                return frame

    def _expect_prefix(self) -> None:
        self._head = bytearray(_PREFIX.size)
        self._rest = memoryview(self._head)
        self._body = None
        self._reading_body = False

    def _expect_header(self) -> None:
        header, body = _PREFIX.unpack(self._head)
        if body > _LARGEST:
            raise EOFError("the channel carries something else than frames")
        self._head = bytearray(header)
        self._rest = memoryview(self._head)
        self._body = bytearray(body)


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
                count = self.sock.send(self._outbox[0])
            except BlockingIOError:
                return
            if count == len(self._outbox[0]):
                self._outbox.popleft()
            else:
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
