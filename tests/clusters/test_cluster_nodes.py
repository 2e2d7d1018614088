"""Two nodes that share neither network nor memory nor working directory; one of them is lost."""

from __future__ import annotations

import threading
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
def cluster(tmp_path):
    """A scheduler without workers: (client, what starts a worker on a new node of a name)."""
    distributed = pytest.importorskip("distributed")
    with (
        nodes_in(tmp_path) as nodes,
        distributed.LocalCluster(host=nodes.host, **QUIET) as scheduler,
        distributed.Client(scheduler) as client,
    ):
        worker = ["-m", "distributed.cli.dask_worker", scheduler.scheduler_address]
        worker += ["--nthreads", "1", "--no-dashboard", "--no-nanny"]

        def hosts():
            return {info["host"] for info in client.scheduler_info()["workers"].values()}

        def start(name):
            before, pause = hosts(), threading.Event()
            node = nodes.start(name, *worker)
            while nodes.apart and not hosts() - before:  # each node has an address of its own
                assert node.poll() is None
                pause.wait(0.05)
            client.wait_for_workers(1, timeout=60)
            return node

        yield client, start


@pytest.mark.long
def test_all_trials_finish_when_a_node_is_lost_midway(cluster):
    """What ran there is begun again on the other one, by the pool; its processes end with the node."""
    client, start = cluster
    nodes = {name: start(name) for name in ("one", "two")}
    client.wait_for_workers(2, timeout=60)
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
def test_a_node_that_comes_late_gets_the_files_that_were_lost_with_the_first(cluster):
    """They lay there alone: the engine cannot give them to anybody else."""
    client, start = cluster
    first = start("one")
    trials = [rebind.Trial(model=Net, name=f"t{n}", task=slowly) for n in range(8)]
    found = {}
    for result in rebind.run_trials(make_evaluator(), trials, rebind.DaskPool(client), retries=2):
        found[result.name] = result
        if len(found) == 1:
            lose(first)
            start("two")
    assert [result.error for result in found.values() if result.error] == []
    assert [result.info["node"] for result in found.values()].count("two") >= 6


@pytest.mark.long
def test_every_way_to_die_at_every_stage_costs_its_own_trial_only(make_pool):
    """The table of one machine over the engines: 0 lost results, 0 processes left."""
    assert table.crash_table(make_pool()) == table.expected()
