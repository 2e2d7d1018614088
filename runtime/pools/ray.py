"""`RayPool`: jobs on the actors of a Ray cluster."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from .engine import EnginePool
from .host import release, work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .pool import Job


_LONGEST_GOODBYE = 10.0  # seconds for the actors to say that they have let a pool go


class RayPool(EnginePool):
    """Runs jobs on actors of Ray, which live as long as the run, or the `with` block of the pool.

    Each job runs in a process of its own beside the actor, so that a crash costs the job and not
    the actor, and a timeout kills. Ray's own retries and restarts are off.

    Args:
        workers: How many actors.
        threads: How many threads each job may use for its arithmetic.
        cpus: How many of Ray's CPUs each actor takes; as many as threads if not given.
        gpus: How many of Ray's GPUs each actor takes.
        env: Variables of the environment to add or replace in the processes that do the jobs.
        path: Where else these look for modules, on the workers' machines.

    An actor for which Ray has no CPU left waits for one; another pool's actors keep theirs until its
    run, or its `with` block, ends.

    Where Ray was not initialised by the caller, it is started on this machine with the run and ends
    with it. Start it from the main thread.

    Raises:
        ImportError: Ray is not installed; it comes with `rebind[ray]`.
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        threads: int = 1,
        cpus: float | None = None,
        gpus: float = 0,
        env: Mapping[str, str] | None = None,
        path: Sequence[str] = (),
    ) -> None:
        _import_ray()
        super().__init__(threads, env, path)
        if not isinstance(workers, int) or workers < 1:
            raise ValueError(f"RayPool: workers is {workers!r}, and has to be 1 or more")
        self.slots = workers
        self._resources = {"num_cpus": threads if cpus is None else cpus, "num_gpus": gpus}
        self._idle: list[Any] = []
        self._busy: dict[int, Any] = {}
        self._waiting: deque[tuple[Job, Mapping[str, Any]]] = deque()
        self._owns_ray = False

    def _open(self, expected: int) -> None:
        ray = _import_ray()
        if not ray.is_initialized():
            path = [entry for entry in sys.path if entry]
            ray.init(
                num_cpus=self.slots * int(max(1, self._resources["num_cpus"])),
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
                runtime_env={"env_vars": {"PYTHONPATH": ":".join(path)}},
            )
            self._owns_ray = True
        for _ in range(min(self.slots, expected) - len(self._idle)):
            self._idle.append(self._hire())

    def _hire(self) -> Any:
        ray = _import_ray()
        # Two at a time, so that an actor can be asked to let a run go while it works.
        made = ray.remote(_Actor).options(
            max_restarts=0, max_task_retries=0, max_concurrency=2, **self._resources
        )
        return made.remote()

    def _send(self, job: Job, files: Mapping[str, Any]) -> None:
        if files and job.id in self._busy:
            self._give(self._busy[job.id], job, files)
        else:
            self._waiting.append((job, files))
            self._assign()

    def _assign(self) -> None:
        while self._waiting and (self._idle or len(self._busy) < self.slots):
            job, files = self._waiting.popleft()
            actor = self._idle.pop() if self._idle else self._hire()
            self._busy[job.id] = actor
            self._give(actor, job, files)

    def _give(self, actor: Any, job: Job, files: Mapping[str, Any]) -> None:
        reference = actor.work.remote(self._assignment(job), list(files), *files.values())
        # A weak reference: a callback must not keep an abandoned pool from being collected.
        reference.future().add_done_callback(partial(_report, weakref.ref(self), self._run, job.id))

    def _recall(self, job_id: int) -> None:
        self._waiting = deque(item for item in self._waiting if item[0].id != job_id)
        actor = self._busy.pop(job_id, None)
        if actor is not None:
            _import_ray().kill(actor)

    def _read(self, job_id: int, answer: Any) -> Any:
        outcome = super()._read(job_id, answer)
        if job_id not in self._jobs:
            actor = self._busy.pop(job_id, None)
            if actor is not None and not isinstance(answer, str):
                self._idle.append(actor)
            self._assign()
        return outcome

    def _put(self, content: bytes) -> Any:
        return _import_ray().put(content)

    def _let_go(self, name: str) -> None:
        ray = _import_ray()
        actors, self._idle = self._idle, []
        if ray.is_initialized():
            # The processes end by themselves, so that what they are in the midst of is written.
            goodbyes = [actor.release.remote(name) for actor in actors]
            ray.wait(goodbyes, num_returns=len(goodbyes), timeout=_LONGEST_GOODBYE) if goodbyes else None
            for actor in actors:
                ray.kill(actor)
        if self._owns_ray:
            self._owns_ray = False
            ray.shutdown()

    def __repr__(self) -> str:
        return f"RayPool(workers={self.slots}, threads={self.threads})"


class _Actor:
    """What runs on a worker of Ray's."""

    def work(self, assignment: bytes, digests: Sequence[str], *contents: bytes) -> bytes:
        """Do one job."""
        return work(assignment, dict(zip(digests, contents, strict=True)))

    def release(self, name: str) -> None:
        """Let the processes of a pool go."""
        release(name)


def _report(pool: weakref.ref[RayPool], run: str, job_id: int, future: Any) -> None:
    """Runs in a thread of Ray's when a job has ended."""
    owner = pool()
    if owner is None:
        return
    try:
        answer: Any = future.result()
    except Exception as error:  # noqa: BLE001 - whatever the engine has to say
        answer = f"was lost by Ray: {type(error).__name__}: {error}"
    owner._came(run, job_id, answer)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError("RayPool needs Ray: install it with pip install 'rebind[ray]'") from error
    return ray
