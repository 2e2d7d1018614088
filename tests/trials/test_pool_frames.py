from __future__ import annotations

import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebind.runtime.pools.frames import Channel, Frame, Inbox, send

headers = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)
frames = st.builds(Frame, headers, st.binary(max_size=300))


class Scripted:
    """A socket that gives bytes in pieces of given sizes, with nothing in between."""

    def __init__(self, data, sizes):
        self.data, self.sizes = data, sizes

    def recv_into(self, buffer):
        size = next(self.sizes)
        if size == 0:
            raise BlockingIOError
        piece = self.data[: min(size, len(buffer))]
        self.data = self.data[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


@given(st.lists(frames, min_size=1, max_size=4), st.lists(st.integers(0, 40), min_size=1))
def test_frames_arrive_whole_however_they_are_cut(sent, sizes):
    """Any cutting of the stream, with any pauses, gives the frames that were sent, in order."""
    data = b"".join(bytes(part) for frame in sent for part in frame.parts())
    cycle = iter(lambda: None, 0)
    sock = Scripted(data, (size for _ in cycle for size in [*sizes, 7]))
    inbox, got = Inbox(), []
    while len(got) < len(sent):
        try:
            got.append(inbox.receive(sock))
        except BlockingIOError:
            continue
    assert [(dict(f.header), bytes(f.body)) for f in got] == [(dict(f.header), f.body) for f in sent]
    assert not inbox.begun


def test_a_stream_that_ends_within_a_frame_is_told_as_an_end():
    """Half a message is never taken for a message."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(Frame({"kind": "answer"}, b"x" * 100).parts()[0])
        theirs.close()
        with pytest.raises(EOFError):
            Inbox().receive(ours)


@pytest.mark.parametrize("lengths", [(10, 1 << 60), ((1 << 32) - 1, 10)], ids=["body", "header"])
def test_noise_is_told_as_an_end_and_not_as_a_huge_message(lengths):
    """A length that no message has is not allocated."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours)
        theirs.sendall(struct.pack("!IQ", *lengths))
        with pytest.raises(EOFError):
            channel.receive()
        channel.close()


def test_a_channel_never_waits_for_a_worker_that_does_not_read():
    """The rest of a large message stays queued, and arrives whole once somebody reads."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours)
        body = bytes(range(256)) * (1 << 15)
        channel.send(Frame({"kind": "job"}, body))
        channel.flush()
        assert channel.sending
        inbox, received = Inbox(), None
        theirs.setblocking(False)
        while received is None:
            channel.flush()
            try:
                received = inbox.receive(theirs)
            except BlockingIOError:
                assert inbox.begun
        assert bytes(received.body) == body
        assert not channel.sending
        channel.close()


def test_a_blocking_end_and_a_channel_understand_each_other():
    """What a worker sends in one go is received as one frame."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours)
        assert channel.receive() is None
        send(theirs, Frame({"kind": "ready", "id": 1}))
        frame = channel.receive()
        assert dict(frame.header) == {"kind": "ready", "id": 1}
        assert channel.receive() is None
        channel.close()


def test_an_inbox_keeps_nothing_of_a_frame_that_it_gave_away():
    """A large result is freed as soon as nobody uses it, also while the channel is silent."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox = Inbox()
        send(theirs, Frame({"kind": "answer"}, b"x" * 10_000))
        body = inbox.receive(ours).body
        assert sys.getrefcount(body) == 2  # `body` itself, and the argument
        memory = body.obj
        body.release()
        memory.append(1)  # which another view of it would forbid


def test_an_inbox_that_has_read_a_long_header_becomes_small_again():
    """A traceback may be long, and comes seldom."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox, size = Inbox(), len(Inbox()._read)
        for text in ("x" * 100_000, "y"):
            send(theirs, Frame({"kind": text}, b"body"))
            frame = inbox.receive(ours)
            assert (frame.header["kind"], bytes(frame.body)) == (text, b"body")
            assert len(inbox._read) == size
