"""Engine `slurm`: an array of jobs by submitit, each with a batch of shards; what a job leaves unmade goes to another."""

import os
import shutil
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featstore.compute import Decomposer
from featstore.errors import InputError, WorkerError
from featstore.run import Advance, ShardSpec
from featstore.sealing import sweep
from featstore.worker import Made, Worker

from .base import GO_ON, TRIES, Say, Tries
from .batch import LOOK, STALE, Batch, Mailbox, beat
from .errand import Errand, errand

__all__ = ["JOBS", "SlurmEngine"]

JOBS = 8
POLL = 0.5  # [s] between two looks at the notes that jobs leave
BEAT = 15.0  # [s] between two signs of life
GRACE = 5.0  # [s] that a note may take to be seen here after its job has ended


@dataclass(frozen=True)
class SlurmEngine:
    """Makes shards in ``jobs`` jobs at a time, by submitit with its ``parameters`` (of ``AutoExecutor``).

    ``folder``, which every node must see, takes what jobs and driver tell each other, and the logs. ``cluster`` is `slurm`;
    `local` runs jobs as processes here, `debug` in this process. A shard is begun ``tries`` times at most; ``timeout`` is how
    long it, or loading the model, may take [s] before its job ends itself as hung.
    """

    worker: Worker
    folder: Path
    cluster: str = "slurm"
    jobs: int = JOBS
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tries: int = TRIES
    timeout: float | None = None

    def make_shards(
        self,
        specs: Sequence[ShardSpec],
        decomposer: Decomposer,
        advance: Advance = lambda count: None,
        say: Say = lambda line: None,
    ) -> Generator[Made, None, None]:
        """Make shards in no fixed order; ``advance`` is told of a shard's images when it is sealed. See ``Engine``."""
        if not specs:
            return
        with errand(specs, self.worker.make) as task, closing(Queue(self, specs, task, say)) as queue:
            for made in queue.results():
                advance(len(made.spec.images))
                yield made


@dataclass
class Job:
    """A job of submitit's, its shards that are not made yet, and when it was seen to have ended [s]."""

    handle: Any
    left: list[ShardSpec]
    ended: float | None = None


class Queue:
    """The jobs of one build, and what is left to make."""

    def __init__(self, engine: SlurmEngine, specs: Sequence[ShardSpec], task: Errand, say: Say) -> None:
        self.engine, self.task, self.say = engine, task, say
        self.folders = {spec.path.parent for spec in specs}
        self.tries = Tries(engine.tries, say)
        # Whoever builds holds the store's lock: what earlier builds left here is of nobody.
        shutil.rmtree(engine.folder, ignore_errors=True)
        self.mailbox = Mailbox(engine.folder / f"{os.getpid()}-{time.time_ns():x}", STALE, LOOK)
        self.mailbox.folder.mkdir(parents=True)
        self.beaten, self.kept = 0.0, False
        self.jobs: list[Job] = []
        self.beat()
        self.executor = make_executor(engine, self.mailbox.folder / "jobs")
        each = -(-len(specs) // min(engine.jobs, len(specs)))
        self.submit([list(specs[start : start + each]) for start in range(0, len(specs), each)])

    def submit(self, batches: Iterable[list[ShardSpec]]) -> None:
        """Hand jobs in, as one array. Raises WorkerError where the cluster does not take them."""
        engine = self.engine
        lots = [lot for lot in batches if lot]
        args = (self.mailbox, engine.timeout, engine.cluster == "debug")
        calls = [Batch(self.task, tuple(lot), *args) for lot in lots]
        try:
            with self.executor.batch():
                handles = [self.executor.submit(call) for call in calls]
        except Exception as error:
            raise WorkerError(f"the cluster did not take the jobs: {one_line(error)}; {GO_ON}") from error
        self.jobs += [Job(handle, lot) for handle, lot in zip(handles, lots, strict=True)]
        if engine.cluster != "debug":
            names = ", ".join(handle.job_id for handle in handles[:4]) + (" …" if len(handles) > 4 else "")
            self.say(
                f"submitted {len(handles)} job{'s' * (len(handles) > 1)} ({names}); logs in {self.executor.folder}"
            )

    def results(self) -> Generator[Made, None, None]:
        """Yield shards as notes of them come in."""
        while self.jobs:
            self.beat()
            found = False
            for job in self.jobs:
                for spec in tuple(job.left):
                    made = self.mailbox.collect(spec)
                    if made is not None:
                        found = True
                        job.left.remove(spec)
                        yield made
                        self.beat()
            self.look_after()
            if self.jobs and not found:
                time.sleep(POLL)

    def look_after(self) -> None:
        """Forget jobs that are done; give what the others have left undone to new ones."""
        again = []
        for job in tuple(self.jobs):
            if not job.left:
                self.jobs.remove(job)
            elif job.ended is not None and time.monotonic() - job.ended > self.grace(job):
                self.jobs.remove(job)
                self.judge(job)
                again.append(job.left)
            elif job.ended is None and job.handle.done():
                job.ended = time.monotonic()
        if again:
            self.submit(again)

    def grace(self, job: Job) -> float:
        """Return how long to wait for the notes of a job that has ended [s]: none where it has told how."""
        return 0.0 if job.handle.paths.result_pickle.exists() or self.engine.cluster != "slurm" else GRACE

    def judge(self, job: Job) -> None:
        """Count a job that ended before its time against the shard it was at."""
        name, log = f"job {job.handle.job_id}", job.handle.paths.stderr
        told = outcome(job.handle, self.engine.cluster)
        if told is None:
            state = str(job.handle.state).lower()
            how = "ended without a word" if state in ("finished", "completed", "unknown") else f"ended ({state})"
            self.tries.lost(job.left[0], name, f"{how}, its log is {log}")
        elif told[1] is None:  # before the first shard: what any other job would meet as well
            raise told[0].error
        else:
            self.tries.failed(told[1], name, told[0].error)

    def beat(self) -> None:
        """Tell jobs, now and then, that somebody waits for them."""
        if time.monotonic() - self.beaten > BEAT:
            beat(self.mailbox)
            self.beaten = time.monotonic()

    def close(self) -> None:
        """Cancel the jobs that still are, and clear away what they were writing; logs stay where something failed."""
        failed = bool(self.jobs)
        for job in self.jobs:
            with suppress(Exception):  # a job that has ended, or a cluster that does not answer: they end themselves
                job.handle.cancel(check=False)
        self.mailbox.alive.unlink(missing_ok=True)
        for folder in self.folders:
            sweep(folder, self.mailbox.workers())
        if not failed and not self.tries.counts:
            shutil.rmtree(self.engine.folder, ignore_errors=True)


def make_executor(engine: SlurmEngine, folder: Path) -> Any:
    """Return submitit's executor. Raises InputError without it or for a wrong parameter, WorkerError without Slurm."""
    try:
        import submitit
    except ImportError as error:
        raise InputError('engine slurm needs submitit: pip install "featstore-dvt[slurm]"') from error
    try:
        executor = submitit.AutoExecutor(folder, cluster=engine.cluster)
        executor.update_parameters(**engine.parameters)
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise InputError(f"--slurm: {one_line(error)}") from error
    except RuntimeError as error:
        raise WorkerError(
            f"there is no Slurm here ({one_line(error)}); --slurm cluster=local tries it without"
        ) from error
    return executor


def outcome(handle: Any, cluster: str) -> Any:
    """Return what a job's call returned, None where the job ended before that."""
    if cluster == "debug":
        return handle.result()
    if not handle.paths.result_pickle.exists():
        return None
    try:
        return handle.result()
    except Exception:  # submitit's own tale of a job that it gave up
        return None


def one_line(error: Exception) -> str:
    """Return the first line of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
