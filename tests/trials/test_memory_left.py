"""How much memory is left, by what the system tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebind.runtime.trials import memory_left as module
from rebind.runtime.trials.memory_left import memory_left

MIB = 1 << 20


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system that tells what it is told to: available MiB, groups, and the files of groups."""

    def make(available, groups, files):
        (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {available * 1024} kB\n")
        (tmp_path / "cgroup").write_text(groups)
        for name, content in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        monkeypatch.setattr(module, "_MACHINE", tmp_path / "meminfo")
        monkeypatch.setattr(module, "_OWN_GROUPS", tmp_path / "cgroup")
        versions = {
            name: (tmp_path / "sys" / folder.relative_to("/sys/fs/cgroup"), *names)
            for name, (folder, *names) in module._VERSIONS.items()
        }
        monkeypatch.setattr(module, "_VERSIONS", versions)
        return memory_left() / MIB

    return make


UNLIMITED = {"memory.max": "max", "memory.current": str(900 * MIB)}
LIMITED = {"a/memory.max": str(500 * MIB), "a/memory.current": str(400 * MIB)}
OLD = {"memory/memory.limit_in_bytes": str(80 * MIB), "memory/memory.usage_in_bytes": str(60 * MIB)}


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("", {}, 1000),
        ("0::/\n", UNLIMITED, 1000),
        ("0::/a\n", LIMITED, 100),
        ("0::/a/b\n", LIMITED | {"a/b/memory.max": "max"}, 100),
        ("0::/a/b\n", LIMITED | {"a/b/memory.max": str(9 * MIB), "a/b/memory.current": "0"}, 9),
        ("0::/a\n", LIMITED | {"a/memory.stat": f"anon 1\ninactive_file {70 * MIB}\n"}, 170),
        ("0::/a\n", {"a/memory.max": "0", "a/memory.current": "5"}, 0),
        ("0::/of/the/host\n", {"memory.max": str(30 * MIB), "memory.current": "0"}, 30),
        ("5:cpu,memory:/docker/x\n0::/\n", OLD, 20),
        ("5:cpu:/x\n", OLD, 1000),
        ("nonsense\n\n0::/a\n", LIMITED, 100),
    ],
    ids=[
        "no groups", "unlimited", "limited", "limited above", "nearest", "files are given up", "full",
        "seen from inside", "version 1", "not of memory", "nonsense",
    ],
)  # fmt: skip
def test_the_least_of_what_machine_and_groups_leave(system, groups, files, left):
    """In MiB, of 1,000 that the machine has."""
    assert system(1000, groups, files) == left


def test_names_that_are_not_text_do_no_harm(system, tmp_path):
    """A group may be called by any bytes."""
    system(1000, "0::/\n", UNLIMITED)
    (tmp_path / "cgroup").write_bytes(b"0::/\xff\n")
    assert memory_left() == 1000 * MIB


def test_it_is_that_of_this_machine():
    """Between nothing and all, by the kernel's own word."""
    total = int(Path("/proc/meminfo").read_text().split()[1]) << 10
    assert 0 < memory_left() <= total


def test_nothing_is_left_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MACHINE", tmp_path / "none")
    assert memory_left() == 0
