"""Who has a job that was sent ahead: the worker, or the pool again.

A busy worker gets its next job before it is done with the current one, so that it need not wait for it.
With each such job goes a token: its number, in a pipe that both ends read. A worker begins the job only if
it gets the token, which it asks for when it has sent the answer before; a pool that wants the job back, for a
worker that has become idle, takes the token itself. The system gives each token to one reader.
"""

from __future__ import annotations

import os
import struct

_TOKEN = struct.Struct("!q")
_MOST = 2  # at a time: of the job ahead, and of one that the worker is about to begin


class Tokens:
    """The pool's end: gives out tokens, and takes back those that the worker has not taken."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        self.reader: int = reader
        os.set_blocking(self.reader, False)

    def give(self, job_id: int) -> None:
        """Let the worker begin a job."""
        os.write(self._writer, _TOKEN.pack(job_id))

    def take_back(self) -> frozenset[int]:
        """Give the jobs that the worker has not begun, and will not begin any more."""
        return frozenset(_read(self.reader, _MOST))

    def close(self) -> None:
        """Free both ends of the pipe."""
        os.close(self.reader)
        os.close(self._writer)


class Claims:
    """The worker's end.

    Args:
        descriptor: `Tokens.reader`, as inherited.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def may_begin(self, job_id: int) -> bool:
        """Whether this job is the worker's; the pool does not take it back any more.

        Asked once per job, in the order in which they came. Where there is no token, the job has been taken
        back; the next token is given when the worker is known to have asked.
        """
        return _read(self._descriptor, 1) == [job_id]


def _read(descriptor: int, most: int) -> list[int]:
    try:
        return [job_id for (job_id,) in _TOKEN.iter_unpack(os.read(descriptor, most * _TOKEN.size))]
    except BlockingIOError:
        return []
