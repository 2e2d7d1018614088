"""Two nodes that share neither network nor memory nor working directory; one of them is lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import test_crash_table as table
from nodes import lose, nodes_in
from trial_material import Net, make_evaluator

import rebind

QUIET = {"n_workers": 0, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}


def slowly(binding):
    time.sleep(0.3)
    return binding.evaluate().score, {"node": Path.cwd().name}


@pytest.fixture
def two_nodes(tmp_path):
    """A scheduler, and a worker on each of two nodes: (client, the nodes' processes by name)."""
    distributed = pytest.importorskip("distributed")
    with (
        nodes_in(tmp_path) as nodes,
        distributed.LocalCluster(host=nodes.host, **QUIET) as cluster,
        distributed.Client(cluster) as client,
    ):
        worker = ["-m", "distributed.cli.dask_worker", cluster.scheduler_address]
        worker += ["--nthreads", "1", "--no-dashboard", "--no-nanny"]
        started = {name: nodes.start(name, *worker) for name in ("one", "two")}
        client.wait_for_workers(2, timeout=60)
        if nodes.apart:
            hosts = {info["host"] for info in client.scheduler_info()["workers"].values()}
            assert len(hosts) == 2, "each node has an address of its own"
        yield client, started


@pytest.mark.long
def test_all_trials_finish_when_a_node_is_lost_midway(two_nodes):
    """What ran there is begun again on the other one, by the pool; its processes end with the node."""
    client, nodes = two_nodes
    trials = [rebind.Trial(model=Net, name=f"t{n}", task=slowly) for n in range(24)]
    found = {}
    for result in rebind.run_trials(make_evaluator(), trials, rebind.DaskPool(client), retries=2):
        found[result.name] = result
        if len(found) == 1:
            lose(nodes[result.info["node"]])
    assert sorted(found) == sorted(f"t{n}" for n in range(24))
    assert [result.error for result in found.values() if result.error] == []
    assert max(result.attempts for result in found.values()) <= 3
    assert {result.info["node"] for result in found.values()} == {"one", "two"}


@pytest.mark.long
def test_every_way_to_die_at_every_stage_costs_its_own_trial_only(make_pool):
    """The table of one machine over the engines: 0 lost results, 0 processes left."""
    assert table.crash_table(make_pool()) == table.expected()
