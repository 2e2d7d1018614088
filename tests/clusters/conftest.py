"""Real Dask and Ray on loopback, once for all tests; no test may leave a process of the pools' own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TRIALS = HERE.parent / "trials"
sys.path[:0] = [str(TRIALS)]

from trial_processes import MARK, wait_until_gone  # noqa: E402 - found by the line above


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep engines out of the default run: they leave sockets behind that a later test would answer for."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.clusters)


def job_processes():
    """The processes in which jobs run, whoever started them."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if (
                b".pools.worker" in (folder / "cmdline").read_bytes()
                and mark in (folder / "environ").read_bytes()
            ):
                found.add(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


@pytest.fixture(autouse=True, scope="module")
def no_process_of_a_pool_is_left():
    before = job_processes()
    yield
    assert not wait_until_gone(job_processes() - before, seconds=5)


@pytest.fixture(scope="session")
def dask_client():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1", silence_logs=50
    )
    client = distributed.Client(cluster)
    yield client
    client.close()
    cluster.close()


@pytest.fixture(scope="session")
def ray_cluster():
    ray = pytest.importorskip("ray")
    path = os.pathsep.join(str(entry) for entry in sys.path if entry)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session", params=["dask", pytest.param("ray", marks=pytest.mark.long)])
def make_pool(request):
    """Makes pools over one engine, which is started once."""
    import rebind

    if request.param == "dask":
        client = request.getfixturevalue("dask_client")
        return lambda: rebind.DaskPool(client)
    request.getfixturevalue("ray_cluster")
    return lambda: rebind.RayPool(workers=2)
