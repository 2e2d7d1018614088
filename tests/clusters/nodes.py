"""Nodes of a cluster on one machine, each with a network, processes and shared memory of its own.

Where the system lets nobody make namespaces, a node has only a working directory of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

# Of its own for each process that makes nodes; such addresses are for test networks on one machine.
_SUBNET = f"10.213.{os.getpid() % 256}"
HOST = f"{_SUBNET}.1"

# The shared memory of a node is its own, and `/proc` tells of its own processes only: a path that the
# others' files have means nothing there.
_ALONE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]
_ALONE += ['mount -t tmpfs tmpfs /dev/shm && exec "$@"', "node"]


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Network:
    """A bridge that nodes are plugged into."""

    def __init__(self, stack):
        self.name = f"rb{os.getpid()}"
        self._stack = stack
        self._nodes = 0
        _ip("link", "add", self.name, "type", "bridge")
        stack.callback(_ip, "link", "del", self.name)
        _ip("address", "add", f"{HOST}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")

    def plug_in(self):
        """Make a namespace with an address; returns the command that enters it."""
        self._nodes += 1
        space = f"{self.name}n{self._nodes}"
        _ip("netns", "add", space)
        self._stack.callback(_ip, "netns", "del", space)
        _ip("link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", space, "master", self.name, "up")
        for order in (
            f"address add {_SUBNET}.{self._nodes + 1}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
        ):
            _ip("-n", space, *order.split())
        return ["ip", "netns", "exec", space, *_ALONE]


class Nodes:
    """Starts processes on nodes, and ends them.

    Attributes:
        host: The address at which this process is reached from the nodes.
        apart: Whether nodes have namespaces of their own.
    """

    def __init__(self, stack, folder):
        self._folder = folder
        self._stack = stack
        try:
            self._network = Network(stack)
            self._network.plug_in()
        except (OSError, subprocess.CalledProcessError):
            self._network = None
        self.apart = self._network is not None
        self.host = HOST if self.apart else "127.0.0.1"

    def start(self, name, *arguments):
        """Start Python with these arguments on a new node, in a working directory of its own."""
        folder = self._folder / name
        folder.mkdir()
        path = os.pathsep.join(str(entry) for entry in sys.path if entry)
        process = subprocess.Popen(
            [*(self._network.plug_in() if self.apart else []), sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(lose, process)
        return process


def lose(node):
    """End a node with all its processes, at once."""
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


@contextmanager
def nodes_in(folder):
    """Nodes whose working directories lie in a folder; they are gone after the block."""
    with ExitStack() as stack:
        yield Nodes(stack, folder)
