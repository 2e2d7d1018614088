"""A file is saved whole or not at all, whatever happens."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import saving_process
import torch

from rebind.evaluator_schema.errors import NotSerializableError, SaveError
from rebind.serialization import pack, pack_file, renaming, unpack, unpack_file


@pytest.fixture(scope="module")
def processes():
    """Processes that start in milliseconds, from a server that has torch loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["saving_process"])
    with pytest.MonkeyPatch.context() as patch:
        # The server has a search path of its own, which knows nothing of pytest's.
        patch.setenv("PYTHONPATH", str(Path(saving_process.__file__).parent), prepend=os.pathsep)
        multiprocessing.forkserver.ensure_running()
    return context


def assert_whole(path):
    value = unpack_file(path, trusted=True)
    assert bool((value["data"] == value["version"]).all())
    return value["version"]


def kill_while_saving(context, path, times, generator):
    for turn in range(times):
        receiver, sender = context.Pipe(duplex=False)
        arguments = (path, bool(turn % 2), sender)
        process = context.Process(target=saving_process.save_for_ever, args=arguments)
        process.start()
        assert receiver.poll(60)
        time.sleep(generator.random() * 0.03)  # a random moment, not a wait for something
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        receiver.close()
        sender.close()
        assert_whole(path)


def test_a_save_that_is_killed_leaves_a_whole_file(tmp_path, processes):
    """SIGKILL at random moments, over and over on the same name, waiting for the disk and not."""
    kill_while_saving(processes, tmp_path / "f", 16, random.Random(1))


@pytest.mark.long
def test_two_hundred_killed_saves_leave_a_whole_file(tmp_path, processes):
    """The same, 200 times."""
    kill_while_saving(processes, tmp_path / "f", 200, random.Random(2))


def test_readers_and_writers_at_the_same_time_see_whole_files_only(tmp_path, processes):
    """Three processes save to one name, and every read in between finds one of their versions."""
    path = tmp_path / "f"
    pack_file(saving_process.content(0), path, kind="t")
    writers = [
        processes.Process(target=saving_process.save_many, args=(path, 30, first))
        for first in (1000, 2000, 3000)
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(assert_whole(path))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(seen) > 1
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_a_file_opens_in_a_child_that_was_forked_after_a_save(tmp_path):
    """The threads of a digest do not have to survive a fork."""
    path = tmp_path / "f"
    value = saving_process.content(5) | {"large": torch.zeros(8 << 20, dtype=torch.uint8)}
    pack(value, kind="t")
    pack_file(value, path, kind="t")
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            saving_process.read_forked(path)
        finally:
            os._exit(0 if not sys.exc_info()[0] else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


whether_it_waits_for_the_disk = pytest.mark.parametrize("durable", [True, False])


@whether_it_waits_for_the_disk
def test_a_saved_file_is_private_and_alone(tmp_path, durable):
    """Only its owner reads it, also where another one lay; nothing else is left in the folder."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(0o666)
    pack_file([1], path, kind="t", durable=durable)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


@whether_it_waits_for_the_disk
def test_what_has_the_old_file_open_keeps_it(tmp_path, durable):
    """A reader's mapping is of the file that it opened."""
    path = tmp_path / "f"
    pack_file(torch.zeros(5000), path, kind="t")
    old = unpack_file(path, trusted=True)
    pack_file(torch.ones(5000), path, kind="t", durable=durable)
    assert not old.any()
    assert unpack_file(path, trusted=True).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no call for it")
def test_two_files_trade_places_on_a_memory_disk():
    """Each has the other's name, and there are no more than two."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        one, other = Path(folder, "one"), Path(folder, "other")
        one.write_text("first")
        other.write_text("second")
        assert renaming._trade_places(str(one), str(other))
        assert (one.read_text(), other.read_text()) == ("second", "first")
        renaming.replace(str(one), str(other))
        assert [(each.name, each.read_text()) for each in Path(folder).iterdir()] == [("other", "second")]


@pytest.mark.parametrize("lacking", ["system", "file system"])
def test_where_names_cannot_trade_places_the_file_is_renamed(tmp_path, monkeypatch, lacking):
    """An old C library has no call for it; some file systems refuse it."""
    refused = None if lacking == "system" else (lambda *_: -1)
    monkeypatch.setattr(renaming, "_renameat2", lambda: refused)
    path = tmp_path / "f"
    for version in (1, 2):
        pack_file([version], path, kind="t", durable=False)
        assert unpack_file(path, trusted=True) == [version]
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


@whether_it_waits_for_the_disk
def test_saving_through_a_link_replaces_what_it_points_to(tmp_path, durable):
    """And the link stays one."""
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    pack_file([1], tmp_path / "link", kind="t", durable=durable)
    assert (tmp_path / "link").is_symlink()
    assert unpack_file(tmp_path / "real", trusted=True) == [1]


def test_a_value_that_cannot_be_written_leaves_the_old_file(tmp_path):
    """Nothing is opened before the value is pickled."""
    path = tmp_path / "f"
    pack_file([1], path, kind="t")
    with pytest.raises(NotSerializableError):
        pack_file((each for each in "ab"), path, kind="t")
    assert unpack_file(path, trusted=True) == [1]
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_a_system_that_refuses_to_write_on_leaves_the_old_file(tmp_path):
    """In the middle of the data, where the file grows beyond what the system allows."""
    path = tmp_path / "f"
    pack_file([1], path, kind="t")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(SaveError, match=r"could not be written.*ulimit"):
            pack_file(saving_process.content(2), path, kind="t")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert unpack_file(path, trusted=True) == [1]
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB, where the system lets us mount one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_leaves_the_old_file(small_disk):
    """The error says so, and the half-written file is gone."""
    path = small_disk / "f"
    pack_file([1], path, kind="t")
    with pytest.raises(SaveError, match="The disk is full"):
        pack_file(torch.zeros(2 << 20, dtype=torch.uint8), path, kind="t")
    assert unpack_file(path, trusted=True) == [1]
    assert [each.name for each in small_disk.iterdir()] == ["f"]


@whether_it_waits_for_the_disk
def test_a_place_that_cannot_be_written_to_is_told(tmp_path, durable):
    """A folder that is missing, and a name that is a folder, which stays."""
    with pytest.raises(SaveError, match="folder does not exist"):
        pack_file([1], tmp_path / "no" / "f", kind="t", durable=durable)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SaveError, match="could not be written"):
        pack_file([1], tmp_path / "folder", kind="t", durable=durable)
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder").is_dir()


def test_the_file_and_the_bytes_are_the_same(tmp_path):
    """Both ways of writing give one format, to the byte."""
    value = [torch.arange(5000), torch.arange(7), "text"]
    pack_file(value, tmp_path / "f", kind="t")
    assert (tmp_path / "f").read_bytes() == pack(value, kind="t")
    assert unpack((tmp_path / "f").read_bytes(), trusted=True)[2] == "text"
