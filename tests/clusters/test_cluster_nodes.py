"""Two nodes that share neither a working directory nor a folder for files; one of them is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import test_crash_table as table
from trial_material import Net, make_evaluator

import rebind

QUIET = {"n_workers": 0, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "silence_logs": 50}


def slowly(binding):
    time.sleep(0.3)
    return binding.evaluate()


@pytest.fixture
def two_nodes(tmp_path):
    """A scheduler, and a worker on each of two nodes: (client, the nodes' processes)."""
    distributed = pytest.importorskip("distributed")
    path = os.pathsep.join(str(entry) for entry in sys.path if entry)
    with (
        distributed.LocalCluster(**QUIET) as cluster,
        distributed.Client(cluster) as client,
    ):
        nodes = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
            command += ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(folder)]
            environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder)}
            nodes.append(
                subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    start_new_session=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        client.wait_for_workers(2, timeout=60)
        yield client, nodes
        for node in nodes:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


@pytest.mark.long
def test_all_trials_finish_when_a_node_is_lost_midway(two_nodes):
    """What ran there is begun again on the other one, by the pool; its processes end with the node."""
    client, nodes = two_nodes
    trials = [rebind.Trial(model=Net, name=f"t{n}", task=slowly) for n in range(24)]
    found = {}
    for result in rebind.run_trials(make_evaluator(), trials, rebind.DaskPool(client), retries=2):
        found[result.name] = result
        if len(found) == 8:
            nodes[0].kill()
    assert sorted(found) == sorted(f"t{n}" for n in range(24))
    assert [result.error for result in found.values() if result.error] == []
    assert max(result.attempts for result in found.values()) <= 3
    assert len({result.process_id for result in found.values()}) >= 2, "both nodes worked"


@pytest.mark.long
def test_every_way_to_die_at_every_stage_costs_its_own_trial_only(make_pool):
    """The table of one machine over the engines: 0 lost results, 0 processes left."""
    assert table.crash_table(make_pool()) == table.expected()
