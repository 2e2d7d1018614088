"""What a worker process of `LocalPool` runs: jobs are read, handled and answered until it ends."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from time import perf_counter  # by its name: a job may replace the module's
from typing import TYPE_CHECKING

from .ahead import Claims
from .frames import Frame, Inbox, send
from .lifeline import die_with_parent
from .pool import Briefing

if TYPE_CHECKING:
    from .pool import Handler

# Collecting garbage may cost some 50 ms beside what the jobs have imported; after a second of work that
# is little, and the model of one trial should not wait for the collector while the next one is built.
_WORK_WORTH_A_COLLECTION = 1.0
_LONGEST_TEXT = 1 << 20  # characters


def main(channel: int, lifeline: int, crash_report: int, tokens: int) -> None:
    """Serve the parent until it closes the channel.

    Args:
        channel: Descriptor of this worker's end of its private socket.
        lifeline: Descriptor of the pipe that ends when the parent ends.
        crash_report: Descriptor of a file for the Python traceback of a crash in native code.
        tokens: Descriptor of the pipe with the tokens of jobs that are sent ahead.
    """
    die_with_parent(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    for descriptor in (channel, lifeline, crash_report, tokens):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no keyword
    faulthandler.enable(crash_report)
    with socket.socket(fileno=channel) as sock, suppress(EOFError, ConnectionError):
        _serve(sock, Claims(tokens))
    # An exit as after a fork: taking torch apart piece by piece would take half a second.
    atexit._run_exitfuncs()
    _flush()
    os._exit(0)


def _serve(sock: socket.socket, claims: Claims) -> None:
    inbox = Inbox()
    handler: Handler | None = None
    briefed = False
    while True:
        frame = inbox.receive(sock)
        if frame.header["kind"] == "brief":
            try:
                handler = Briefing(frame.header["handler"], bytes(frame.body)).open()
            except BaseException as error:  # noqa: BLE001 - the parent tells it
                send(sock, _failure("broken", frame.header["run"], error))
                return
            if not briefed:
                gc.freeze()  # what is imported by now stays; to look it through takes a collection 0.1 s
                briefed = True
            send(sock, Frame({"kind": "ready", "id": frame.header["run"]}))
        elif frame.header["kind"] == "rest":
            handler = None
            gc.collect()  # models and optimizers are cycles, and hold the memory of the run's files
        elif frame.header["ahead"] and not claims.may_begin(frame.header["id"]):
            del frame
        elif handler is not None:
            began = perf_counter()
            send(sock, _answer(handler, frame))
            del frame  # or the payload would live on while the next job is awaited
            if perf_counter() - began > _WORK_WORTH_A_COLLECTION:
                gc.collect()


def _answer(handler: Handler, frame: Frame) -> Frame:
    job, began = frame.header["id"], perf_counter()
    try:
        answer = handler(frame.body, frame.header["files"])
        return Frame({"kind": "answer", "id": job, "seconds": perf_counter() - began}, answer)
    except BaseException as error:  # noqa: BLE001 - a worker outlives whatever its jobs do
        return _failure("raised", job, error, seconds=perf_counter() - began)
    finally:
        _flush()


def _failure(kind: str, job: int, error: BaseException, **told: float) -> Frame:
    # Neither may be longer than a frame's header can be.
    trace = "".join(traceback.format_exception(error))[-_LONGEST_TEXT:]
    detail = traceback.format_exception_only(error)[-1].strip()[:_LONGEST_TEXT]
    return Frame({"kind": kind, "id": job, "detail": detail, "trace": trace, **told})


def _flush() -> None:
    """Show what the job printed before anybody reads its answer."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # replaced or closed by the job
            stream.flush()
