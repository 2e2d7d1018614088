"""Starting a pool.

Seconds until two fresh workers have each done a job with torch. Each start is made by an interpreter of its
own, which has torch and the pool's library imported before the clock starts. A start of Dask or Ray, or of a
pool over them, is that of a whole cluster on this machine.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.benchmark import Run
from harness.peers import installed
from harness.record import Comparison, Place, Promise
from harness.turns import compare

_FAMILY, _BASELINE = "Start of two workers with torch", "concurrent.futures"
PEERS = ("distributed", "ray", "loky", "joblib")
PROMISES = (
    Promise(
        says="starting a LocalPool takes at most 1.1 times as long as concurrent.futures",
        of=Place(family=_FAMILY, contestant="rebind LocalPool"),
        to=Place(family=_FAMILY, contestant=_BASELINE),
        limit=1.1,
    ),
)

_JOB = """
import time
import torch
def job(n):
    time.sleep(0.05)  # so that each worker gets one
    return float(torch.ones(1))
def make(context):
    return lambda payload, files: str(job(0)).encode()
"""
_OURS = "from rebind.runtime.pools import Briefing, Job"
_TWO_JOBS = """pool.start(Briefing('starting_job:make'), 2)
        for n in range(2): pool.submit(Job(n, b''))
        pool.next_outcome(), pool.next_outcome()
        tell()
        pool.close()"""
_DASK = "from distributed import Client, LocalCluster"
_DASK_CLUSTER = """LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address='127.0.0.1:0', silence_logs=50
        )"""
_RAY_CLUSTER = "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)"
# Of what package each is, what is imported, and what is timed; `begin()` starts the clock, `tell()` stops it.
_SCRIPTS = {
    "rebind LocalPool": (
        "torch",
        f"{_OURS}; from rebind import LocalPool",
        f"""
        pool = LocalPool(2)
        begin()
        {_TWO_JOBS}
        """,
    ),
    _BASELINE: (
        "torch",
        "from concurrent.futures import ProcessPoolExecutor; from multiprocessing import get_context",
        """
        begin()
        pool = ProcessPoolExecutor(2, mp_context=get_context('spawn'))
        list(pool.map(job, range(2)))
        tell()
        pool.shutdown()
        """,
    ),
    "loky": (
        "loky",
        "from loky import ProcessPoolExecutor",
        """
        begin()
        pool = ProcessPoolExecutor(2)
        list(pool.map(job, range(2)))
        tell()
        pool.shutdown()
        """,
    ),
    "joblib": (
        "joblib",
        "from joblib import Parallel, delayed",
        """
        begin()
        Parallel(n_jobs=2)(delayed(job)(n) for n in range(2))
        tell()
        """,
    ),
    "rebind DaskPool": (
        "distributed",
        f"{_DASK}; {_OURS}; from rebind import DaskPool",
        f"""
        begin()
        cluster = {_DASK_CLUSTER}
        client = Client(cluster)
        pool = DaskPool(client)
        {_TWO_JOBS}
        client.close(), cluster.close()
        """,
    ),
    "Dask": (
        "distributed",
        _DASK,
        f"""
        begin()
        cluster = {_DASK_CLUSTER}
        client = Client(cluster)
        client.gather(client.map(job, range(2), pure=False))
        tell()
        client.close(), cluster.close()
        """,
    ),
    "rebind RayPool": (
        "ray",
        f"import ray; {_OURS}; from rebind import RayPool",
        f"""
        begin()
        {_RAY_CLUSTER}
        pool = RayPool(2)
        {_TWO_JOBS}
        ray.shutdown()
        """,
    ),
    "Ray": (
        "ray",
        "import ray",
        f"""
        begin()
        {_RAY_CLUSTER}
        ray.get([ray.remote(job).remote(n) for n in range(2)])
        tell()
        ray.shutdown()
        """,
    ),
}
_FRAME = """
import time, torch
from starting_job import job
{imports}
def begin():
    global began
    began = time.perf_counter()
def tell():
    print('seconds', time.perf_counter() - began, flush=True)
if __name__ == '__main__':{body}
"""


def comparisons(run: Run) -> Iterator[Comparison]:
    """Compare the starts."""
    (run.folder / "starting_job.py").write_text(_JOB, encoding="utf-8")
    works = {
        name: starting(name, imports, body, run.folder)
        for name, (peer, imports, body) in _SCRIPTS.items()
        if installed(peer)
    }
    yield compare(_FAMILY, works, run.pick(5, 1), baseline=_BASELINE, warm_up=0, patience=20)


def starting(name: str, imports: str, body: str, folder: Path) -> Callable[[], float]:
    """Give what starts a pool in an interpreter of its own, and tells the seconds."""
    script = folder / f"starting_by_{name.replace(' ', '_').replace('.', '_').lower()}.py"
    # The body is indented by eight, which is as good as four.
    script.write_text(_FRAME.format(imports=imports, body=body), encoding="utf-8")

    def seconds() -> float:
        done = subprocess.run(  # noqa: S603 - our own script
            [sys.executable, "-W", "ignore", str(script)],
            capture_output=True,
            text=True,
            check=True,
            # Ray's and Dask's workers find the job by the folder they are started in.
            cwd=folder,
        )
        return float(done.stdout.partition("seconds ")[2].split()[0])

    return seconds
