"""`DaskPool`: jobs on the workers of a Dask cluster."""

from __future__ import annotations

import weakref
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from .engine import AGAIN, EnginePool
from .host import release, work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .pool import Job

_PREFIX = "rebind-trial"
_LONGEST_GOODBYE = 10.0  # seconds for the workers to say that they have let a run go


class DaskPool(EnginePool):
    """Runs jobs on the workers of Dask, as many at a time as these have threads.

    Each job runs in a process of its own beside the Dask worker, so that a crash costs the job and
    not the worker, and a timeout kills. Dask's own retries are off for these jobs only.

    Args:
        client: A `distributed.Client`, which stays open. Without one, a cluster on this machine is
            started with the run and ends with it, or with the `with` block of the pool.
        workers: How many workers such a cluster has; not for a client's.
        threads: How many threads each job may use for its arithmetic.
        env: Variables of the environment to add or replace in the processes that do the jobs.
        path: Where else these look for modules, on the workers' machines.

    Raises:
        ImportError: Dask is not installed; it comes with `rebind[dask]`.
    """

    def __init__(
        self,
        client: Any = None,
        *,
        workers: int | None = None,
        threads: int = 1,
        env: Mapping[str, str] | None = None,
        path: Sequence[str] = (),
    ) -> None:
        _import_distributed()
        super().__init__(threads, env, path)
        if client is not None and workers is not None:
            raise ValueError("DaskPool: the client's cluster has the workers that it has; leave out workers")
        if workers is not None and (not isinstance(workers, int) or workers < 1):
            raise ValueError(f"DaskPool: workers is {workers!r}, and has to be 1 or more")
        self._given = client
        self._workers = 2 if workers is None else workers
        self._own: _OwnCluster | None = None
        self._futures: dict[int, Any] = {}
        self._sendings = count()
        self._guarded: Any = None

    @property
    def slots(self) -> int:  # type: ignore[override]  # the cluster may grow and shrink
        """How many threads the workers have by now."""
        if self._given is None:
            return self._workers
        return max(1, sum(map(int, self._given.nthreads().values())))

    @property
    def client(self) -> Any:
        """The client in use, or None."""
        return self._given if self._given is not None else self._own and self._own.client

    def _open(self, expected: int) -> None:  # noqa: ARG002 - as its caller calls it
        if self.client is None:
            self._own = _OwnCluster(self._workers)
        if self._guarded is not self.client:
            self.client.run_on_scheduler(_guard, _PREFIX)
            self._guarded = self.client

    def _send(self, job: Job, files: Mapping[str, Any]) -> None:
        future = self.client.submit(
            _work,
            self._assignment(job),
            list(files),
            *files.values(),
            # Never used before: Dask remembers what became of a key.
            key=f"{_PREFIX}-{self._run}-{job.id}-{next(self._sendings)}",
            pure=False,
            retries=0,
        )
        self._futures[job.id] = future
        # A weak reference: a callback must not keep an abandoned pool from being collected.
        future.add_done_callback(partial(_report, weakref.ref(self), self._run, job.id))

    def _recall(self, job_id: int) -> None:
        future = self._futures.pop(job_id, None)
        if future is not None:
            future.cancel(force=True)

    def _put(self, content: bytes) -> Any:
        return self.client.scatter(content, hash=False)

    def _is_held(self, reference: Any) -> bool:
        # What was handed over may have lain on one worker only, and be lost with it.
        return bool(reference.status == "finished")

    def _read(self, job_id: int, answer: Any) -> Any:
        self._futures.pop(job_id, None)
        return super()._read(job_id, answer)

    def _let_go(self, name: str) -> None:
        if self.client.status == "running":
            self.client.sync(_say_goodbye, self.client, name)
        if self._own is not None:
            self._own.close()
            self._own = None
        self._guarded = None

    def __repr__(self) -> str:
        return f"DaskPool({self.client!r}, threads={self.threads})"


def _work(assignment: bytes, digests: Sequence[str], *contents: bytes) -> bytes:
    """Runs in a Dask worker."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        # The scheduler tells a worker that nobody holds the future any more, be it cancelled or
        # its client gone; Dask itself leaves a task alone that has begun.
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    return work(assignment, dict(zip(digests, contents, strict=True)), wanted)


def _report(pool: weakref.ref[DaskPool], run: str, job_id: int, future: Any) -> None:
    """Runs in a thread of the client's when a job has ended."""
    owner = pool()
    if owner is None:
        return
    try:
        # By the scheduler, which has lost what the job was sent with; the pool itself would not listen.
        answer: Any = AGAIN if future.cancelled() else future.result()
    except Exception as error:  # noqa: BLE001 - whatever the engine has to say
        answer = f"was lost by Dask: {type(error).__name__}: {error}"
    owner._came(run, job_id, answer)


def _guard(prefix: str, dask_scheduler: Any) -> None:
    """Runs in the scheduler: there, our tasks are given up when their worker is lost."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    class OneLife(SchedulerPlugin):
        """A task that was on a lost worker is begun again by the pool, or not at all."""

        name = f"{prefix}-one-life"

        def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - as its caller calls it
            if finish == "processing" and str(key).startswith(prefix):
                dask_scheduler.tasks[key].suspicious = dask_scheduler.allowed_failures

    if f"{prefix}-one-life" not in dask_scheduler.plugins:
        dask_scheduler.add_plugin(OneLife())


async def _say_goodbye(client: Any, name: str) -> None:
    import asyncio
    from contextlib import suppress

    # A worker that does not answer is dying, and its processes with it.
    with suppress(Exception):
        await asyncio.wait_for(
            client._run(release, name, wait=True, on_error="return"), timeout=_LONGEST_GOODBYE
        )


class _OwnCluster:
    """A cluster on this machine, for one pool."""

    def __init__(self, workers: int) -> None:
        import distributed

        engine: Any = distributed  # only half of it is annotated
        self._cluster = engine.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            # Without this, its pages would be open to other machines, and a port that is taken would
            # leave a socket open.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=50,
        )
        try:
            self.client = engine.Client(self._cluster)
        except BaseException:
            self._cluster.close()
            raise

    def close(self) -> None:
        self.client.close()
        self._cluster.close()


def _import_distributed() -> None:
    try:
        import distributed  # noqa: F401 - whether it is there
    except ImportError as error:
        raise ImportError("DaskPool needs Dask: install it with pip install 'rebind[dask]'") from error
