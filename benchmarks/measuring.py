"""What every benchmark shares: the machine, contenders as processes, spread, files of results."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contender import Job
from keras_study import processor, write_results

FORMAT = 2
HERE = Path(__file__).parent
RESULTS = HERE / "results"
# Between two turns, so that the threads of the one that has finished stop spinning.
PAUSE_S = 0.3
# Threads that meet at a barrier lose far more to a busy machine than threads that do not.
BUSY_LOAD = 0.5
BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # either multiplies bfloat16
PEERS = {"keras", "jax", "onnxruntime"}  # live in an environment of their own


class Failed(Exception):
    """A contender ended before it answered, or took longer than it was given."""


class Contender:
    """A process that does a turn whenever it is asked."""

    def __init__(self, job: Job, options: argparse.Namespace) -> None:
        self.label = job.label
        self._scratch = tempfile.TemporaryDirectory(prefix="benchmark-")
        python = options.peers_python if job.kind in PEERS else sys.executable
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            [str(python), str(HERE / "contender.py"), job.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | limits(job.threads, Path(self._scratch.name)),
        )

    def prepare(self, limit_s: float) -> dict[str, Any]:
        """Wait until it is ready: its versions, and the seconds since its start."""
        answer = self.answer(limit_s)
        ready_s = round(self.age(), 2)
        return {"versions": answer["versions"], **answer["told"], "ready_s": ready_s}

    def ask(self, limit_s: float, **turn: Any) -> dict[str, Any]:
        """Ask for a turn and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(turn) + "\n")
        answer = self.answer(limit_s)
        time.sleep(PAUSE_S)
        return answer

    def answer(self, limit_s: float) -> dict[str, Any]:
        """The next line that it says.

        Raises Failed where it ends without one, or is not done within the limit and is ended.
        """
        assert self._process.stdout is not None
        alarm = threading.Timer(limit_s, self._process.kill)
        alarm.start()
        try:
            line = self._process.stdout.readline()
        finally:
            late = not alarm.is_alive()
            alarm.cancel()
        if not line:
            code = self._process.wait()
            why = f"not done within {limit_s:.0f} s" if late else f"ended with code {code}"
            raise Failed(f"{self.label}: {why}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def age(self) -> float:
        """Seconds since its start."""
        return time.perf_counter() - self.began

    def stop(self) -> None:
        """Close the pipe, which ends a waiting process; end one that is still at work."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._scratch.cleanup()


@contextmanager
def field(
    jobs: Iterable[Job], options: argparse.Namespace
) -> Iterator[tuple[dict[str, Contender], dict[str, Any]]]:
    """The contenders that got ready, one after the other, and what each said or why it failed."""
    ready: dict[str, Contender] = {}
    told: dict[str, Any] = {}
    try:
        for job in jobs:
            contender = Contender(job, options)
            try:
                told[job.label] = contender.prepare(options.limit_s)
                ready[job.label] = contender
            except Failed as reason:
                contender.stop()
                told[job.label] = {"failed": str(reason)}
                say(str(reason))
        yield ready, told
    finally:
        for contender in ready.values():
            contender.stop()


def limits(threads: int, scratch: Path) -> dict[str, str]:
    """The environment that gives a contender its threads, no GPU, and an empty compiler cache."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    tensorflow = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {name: str(threads) for name in (*names, *tensorflow)} | {
        "CUDA_VISIBLE_DEVICES": "",
        "TORCHINDUCTOR_CACHE_DIR": str(scratch),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONPATH": str(HERE),
    }


def bind(threads: int) -> list[int] | None:
    """Bind this process, and those it starts, to one core a thread; None where the OS cannot.

    Hyper-threads of one core count once, as long as there are cores left.

    Raises:
        SystemExit: there are fewer processors than threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < threads:
        raise SystemExit(f"--threads {threads} needs as many processors; here are {len(allowed)}")
    first_of_core: dict[str, int] = {}
    for cpu in allowed:
        listing = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first_of_core.setdefault(listing.read_text() if listing.exists() else str(cpu), cpu)
    cores = list(first_of_core.values())
    chosen = [*cores, *(cpu for cpu in allowed if cpu not in cores)][:threads]
    os.sched_setaffinity(0, chosen)
    return chosen


def processor_flags() -> set[str]:
    """What the processor says that it can do."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def native_paths() -> list[str]:
    """The native engine's processor paths that can run here, best first; none without it."""
    from rowwise import core

    return [path for path, obstacle in reversed(core.paths().items()) if obstacle is None]


def native_labels() -> list[str]:
    """A contender for each of these paths: in bfloat16 where it is quick in it, else in float32."""
    from rowwise import core

    quick = [path for path in native_paths() if core.is_quick_in_bfloat16(path)]
    return [
        f"rowwise:native:{path}" + (":bfloat16" if path in quick else "") for path in native_paths()
    ]


def busy_cores(seconds: float = 2.0) -> float | None:
    """How many cores other work keeps busy, over some seconds; None where the system does not tell.

    The load average would do, did it not still hold the benchmark that ran before this one.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return None

    def ticks() -> tuple[int, int]:
        told = [int(word) for word in stat.read_text("ascii").splitlines()[0].split()[1:9]]
        idle = told[3] + told[4]  # idle, and waiting for a disk
        return sum(told) - idle, sum(told)

    busy, total = ticks()
    time.sleep(seconds)
    later, end = ticks()
    return round((os.cpu_count() or 1) * (later - busy) / max(1, end - total), 2)


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """The machine and how it is used, for the head of a results file; binds this process.

    A word on stderr where the machine is busy, as its times then mean little.
    """
    load = busy_cores()
    if load is not None and load > BUSY_LOAD:
        say(f"other work keeps {load} cores busy: times mean little on a machine that is not quiet")
    return {
        "format": FORMAT,
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "paths": native_paths(),
            "memory_gb": memory_gb(),
            "bound_to": bind(options.threads),
        },
        "python": platform.python_version(),
        "threads": options.threads,
        "load_before": load,  # in cores
        "quick": options.quick,
    }


def kept(options: argparse.Namespace, results: dict[str, Any], part: str) -> dict[str, Any]:
    """What an earlier file has under `part`, where only some of it is measured anew.

    Raises:
        SystemExit: it was measured on another machine or with other threads.
    """
    if not options.out.exists():
        return {}
    earlier: dict[str, Any] = json.loads(options.out.read_text("utf-8"))
    for key in ("format", "hardware", "threads", "quick"):
        if earlier.get(key) != results[key]:
            raise SystemExit(f"{options.out.name} has another {key}; choose another --out")
    found: dict[str, Any] = earlier[part]
    return found


def memory_gb() -> float | None:
    """The machine's memory in GB (10^9 bytes)."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """All values, their number, median, minimum and maximum; nothing of none."""
    if not values:
        return {"n": 0}
    rounded = [float(f"{value:.5g}") for value in values]
    return {
        "n": len(rounded),
        "median": statistics.median(rounded),
        "min": min(rounded),
        "max": max(rounded),
        "values": rounded,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)


def save(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Write the results so far."""
    write_results(options.out, results)


def parser(description: str, out: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--data", type=Path, help="folder of the IDX files (default $ROWWISE_DATA)")
    made.add_argument(
        "--peers-python",
        type=Path,
        default=Path(sys.executable),
        help="interpreter of the environment with Keras, TensorFlow, JAX and ONNX Runtime",
    )
    made.add_argument("--threads", type=int, default=2, help="of each contender (default 2)")
    made.add_argument("--rounds", type=int, default=rounds, help=f"turns each (default {rounds})")
    made.add_argument("--limit-s", type=float, default=600, help="for one preparation or turn")
    made.add_argument("--quick", action="store_true", help="a smoke run: little of everything")
    made.add_argument("--out", type=Path, help=f"default results/{out}; --quick: build/bench")
    made.set_defaults(part=out)
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and check what all benchmarks have."""
    options = made.parse_args()
    if options.data is None:
        if "ROWWISE_DATA" not in os.environ:
            made.error("the data folder is needed: pass --data or set ROWWISE_DATA")
        options.data = Path(os.environ["ROWWISE_DATA"])
    if options.rounds < 1 or options.threads < 1:
        made.error("--rounds and --threads must be at least 1")
    if options.quick:
        options.rounds = 1
    if options.out is None:
        options.out = (HERE.parent / "build" / "bench" if options.quick else RESULTS) / options.part
    return options
