"""Handlers for the pools' tests: what a worker does with raw bytes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
import time
from pathlib import Path


def echo(context):
    """Answer with the context and the payload."""
    return lambda payload, files: bytes(context) + bytes(payload)


def digest_and_blob(context):
    """Answer with as many bytes as came, made from their digest: wrong bytes cannot pass."""

    def handle(payload, files):
        seed = hashlib.sha256(payload).digest()
        return seed * (len(payload) // len(seed))

    return handle


def misbehave(context):
    """Do what the payload says."""

    def handle(payload, files):
        word, _, rest = bytes(payload).decode().partition(" ")
        match word:
            case "raise":
                raise ValueError(rest)
            case "leave":
                sys.exit(3)
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop_clock":
                time.perf_counter = time.monotonic = lambda: 0.0
            case "segfault":
                ctypes.string_at(0)
            case "hang":
                time.sleep(3600)
            case "hog":  # sleep without letting go of the interpreter
                Path(rest).write_text(str(os.getpid()))
                ctypes.PyDLL(None).sleep(3600)
            case "linger":  # work until the file is there
                while not Path(rest.partition(" ")[0]).exists():
                    time.sleep(0.005)
            case "note":  # leave a line for each time that this is begun
                with Path(rest).open("a") as file:
                    file.write("begun\n")
            case "sleep":
                time.sleep(float(rest))
            case "spawn":  # leave a process behind, with all that this one has open
                pid = os.fork()
                if not pid:
                    signal.pause()
                return str(pid).encode()
            case "pid":
                return str(os.getpid()).encode()
        return payload

    return handle


def cannot_open(context):
    raise RuntimeError("there is no such accelerator")


def dies_when_opened(context):
    os._exit(7)


def environment(context):
    """Answer with the values of variables."""
    return lambda payload, files: " ".join(
        os.environ[name] for name in bytes(payload).decode().split()
    ).encode()


def digest_of_files(context):
    """Answer with the SHA-256 of the job's one file."""

    def handle(payload, files):
        (path,) = files.values()
        return hashlib.sha256(Path(path).read_bytes()).hexdigest().encode()

    return handle
