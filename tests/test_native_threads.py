"""The native engine among other threads: two at once, forks, Ctrl-C, OpenMP, no threads left."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import pytest
from conformance import Array, Case, case
from hypothesis import given, settings
from hypothesis import strategies as st

from rowwise import core
from rowwise.config import BatchNorm, Dropout, Pixels, Recurrent
from rowwise.engines import native, native_core

if core.why_not() is not None:
    pytest.skip(f"needs the native engine: {core.why_not()}", allow_module_level=True)

pytestmark = [
    # Newer Pythons warn of what these tests are about.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(120),
]

SMALL = case(
    "threads-small",
    BatchNorm(),
    Recurrent(kind="lstm", units=20, bidirectional=True),
    Dropout(rate=0.2),
    shape=(8, 8),
    pictures=300,
)
# One step takes long: about half a second on one core of a laptop.
LONG = case(
    "threads-long",
    Recurrent(kind="lstm", units=128),
    reading=Pixels(),
    shape=(28, 28),
    pictures=128,
    ink="bytes",
)


def begin(chosen: Case, *, threads: int = 2, seed: int = 0) -> native.Trainer:
    images, labels = chosen.images, chosen.labels
    return native.Trainer(
        chosen.network, chosen.weights, images, labels, seed=seed, threads=threads
    )


def run(own: native.Trainer, chosen: Case, *, epochs: int = 1, batch: int = 32) -> None:
    order = np.tile(np.arange(chosen.pictures), epochs)
    steps = -(-len(order) // batch)
    own.run(order, batch=batch, first_step=0, rates=np.full(steps, 0.01))


def end_of(chosen: Case, *, threads: int = 2, seed: int = 0, epochs: int = 1) -> dict[str, Array]:
    own = begin(chosen, threads=threads, seed=seed)
    run(own, chosen, epochs=epochs)
    return own.state()


def same_bits(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return one.keys() == other.keys() and all(
        v.tobytes() == other[k].tobytes() for k, v in one.items()
    )


# --- several at once --------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_trainings_at_once_give_what_each_gives_alone(threads: int) -> None:
    alone = [end_of(SMALL, threads=threads, seed=seed, epochs=3) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = pool.map(lambda seed: end_of(SMALL, threads=threads, seed=seed, epochs=3), range(4))
        together = list(done)
    assert all(map(same_bits, alone, together))


def test_readers_at_once_and_one_reader_in_many_threads() -> None:
    reader = native.Reader(SMALL.network, SMALL.weights, threads=2)
    expected = reader.predict(SMALL.images)

    def read(number: int) -> bool:
        own = reader if number % 2 else native.Reader(SMALL.network, SMALL.weights, threads=2)
        first = number % 30
        alone = own.predict(SMALL.images[first : first + 1])
        whole = own.predict(SMALL.images)
        return np.array_equal(whole, expected) and np.allclose(
            alone, expected[first : first + 1], atol=1e-6
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(60)))


def test_one_trainer_in_two_threads_takes_turns() -> None:
    """A gradient asked for in the middle of a training disturbs it no more than one before."""
    own = begin(SMALL)
    with ThreadPoolExecutor(2) as pool:
        training = pool.submit(run, own, SMALL, epochs=10)
        while not training.done():
            assert np.isfinite(own.evaluate(SMALL.images, SMALL.labels)[0])
            own.gradients(np.arange(5))
            own.state()
    assert same_bits(own.state(), end_of(SMALL, epochs=10))


def test_the_interpreter_lock_is_free_meanwhile() -> None:
    """Another thread of Python counts on through one call that lasts."""
    own = begin(LONG, threads=1)
    longest = counted = 0.0
    with ThreadPoolExecutor(1) as pool:
        began = last = time.perf_counter()
        training = pool.submit(run, own, LONG, batch=64)
        while not training.done():
            time.sleep(0.001)
            now = time.perf_counter()
            longest, last, counted = max(longest, now - last), now, counted + 1
        lasted = time.perf_counter() - began
    assert lasted > 0.1
    assert longest < lasted / 2
    assert counted > 10


def test_it_lives_beside_the_threads_of_pytorch() -> None:
    """Each with two threads, in turns and at once, and neither changes what the other computes."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'rowwise[torch]'")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        factor = torch.linspace(-1, 1, 250_000).reshape(500, 500)
        expected, product = end_of(SMALL, epochs=2), factor @ factor
        for _ in range(3):
            assert torch.equal(factor @ factor, product)
            assert same_bits(end_of(SMALL, epochs=2), expected)
        with ThreadPoolExecutor(2) as pool:
            trained = [pool.submit(end_of, SMALL, epochs=2) for _ in range(4)]
            multiplied = [pool.submit(lambda: factor @ factor) for _ in range(20)]
            assert all(same_bits(one.result(), expected) for one in trained)
            assert all(torch.equal(one.result(), product) for one in multiplied)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --- forks ------------------------------------------------------------------------------------


def in_fork(work: Callable[[], bool]) -> int:
    """Run `work` in a forked child; 0 where it said True, 14 where it never came back."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that waits for threads that it has not is ended
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_forked_child_trains_and_its_parent_goes_on() -> None:
    expected = end_of(SMALL)  # the parent has threads now, asleep
    own = begin(SMALL)
    run(own, SMALL)

    def work() -> bool:
        fresh = same_bits(end_of(SMALL), expected)
        run(own, SMALL)  # the trainer that was forked with it
        return fresh and not same_bits(own.state(), expected)

    assert [in_fork(work) for _ in range(2)] == [0, 0]
    assert same_bits(own.state(), expected)
    assert same_bits(end_of(SMALL), expected)


def test_a_child_of_a_child_trains() -> None:
    expected = end_of(SMALL)

    def work() -> bool:
        return (
            same_bits(end_of(SMALL), expected)
            and in_fork(lambda: same_bits(end_of(SMALL), expected)) == 0
        )

    assert in_fork(work) == 0


def test_a_fork_in_the_middle_of_a_call_disturbs_neither() -> None:
    expected, longer = end_of(SMALL), end_of(SMALL, epochs=40)
    own = begin(SMALL)
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(run, own, SMALL, epochs=40)
        codes = []
        while not training.done() and len(codes) < 5:
            codes.append(in_fork(lambda: same_bits(end_of(SMALL), expected)))
        training.result()
    assert codes
    assert set(codes) == {0}
    assert same_bits(own.state(), longer)


def _sum_of_weights(seed: int) -> float:
    return float(sum(v.sum(dtype=np.float64) for v in end_of(SMALL, seed=seed).values()))


def test_a_pool_of_forked_processes_trains() -> None:
    expected = [_sum_of_weights(seed) for seed in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_sum_of_weights, range(4)).get(timeout=60) == expected


# --- Ctrl-C -----------------------------------------------------------------------------------


@contextmanager
def interrupting(*after_s: float) -> Iterator[list[float]]:
    """Send SIGINT so many seconds from now, then every 20 ms; the list gets the moments.

    It is heard in the engine alone, so that none is raised in the midst of the test itself.
    """
    sent: list[float] = []
    over = threading.Event()

    def send() -> None:
        for pause in itertools.chain(after_s, itertools.repeat(0.02)):
            if over.wait(pause):
                return
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

    def hear(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename == native_core.__file__:
                raise KeyboardInterrupt
            frame = frame.f_back

    before = signal.signal(signal.SIGINT, hear)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sent
    finally:
        over.set()
        sender.join()
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_in_the_middle_of_a_long_step_is_heard(threads: int) -> None:
    """T = 784, H = 128, batch 128; on a quiet machine within two milliseconds."""
    own = begin(LONG, threads=threads)
    with interrupting(0.1) as sent:
        with pytest.raises(KeyboardInterrupt):
            run(own, LONG, epochs=20, batch=128)
        heard = time.perf_counter()
    assert heard - sent[0] < 1
    weights = own.weights()
    assert all(np.array_equal(v, weights[k]) for k, v in LONG.weights.items())
    assert np.isfinite(own.evaluate(LONG.images[:2], LONG.labels[:2])[0])


def test_ctrl_c_while_many_pictures_are_read_is_heard() -> None:
    images = np.tile(LONG.images, (30, 1, 1))
    reader = native.Reader(LONG.network, LONG.weights, threads=2)
    for batch in (64, 10**9):  # many batches, or one
        with interrupting(0.1) as sent:
            with pytest.raises(KeyboardInterrupt):
                reader.predict(images, batch=batch)
            heard = time.perf_counter()
        assert heard - sent[0] < 1
    assert np.isfinite(reader.predict(LONG.images[:2])).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupted_call_leaves_the_last_whole_step_and_goes_on(threads: int) -> None:
    own, steps = begin(SMALL, threads=threads), 20_000
    order, rates = np.arange(8 * steps) % 300, np.full(steps, 1e-4)
    with interrupting(0.1), pytest.raises(KeyboardInterrupt):
        own.run(order, batch=8, first_step=0, rates=rates)
    left, replayed, done = own.state(), begin(SMALL, threads=threads), 0
    while not same_bits(replayed.state(), left):
        assert done < steps, "the weights are those of no whole step"
        replayed.run(order[8 * done : 8 * done + 8], batch=8, first_step=done, rates=rates[:1])
        done += 1
    assert done > 0
    for each in (own, replayed):
        each.run(order[: 8 * 20], batch=8, first_step=done, rates=rates[:20])
    assert same_bits(own.state(), replayed.state())


def test_an_impatient_ctrl_c_leaves_a_trainer_that_works() -> None:
    """A second one while the first is being obeyed may raise before the call has ended."""
    own = begin(LONG)
    for _ in range(3):
        with interrupting(0.03, 0, 0, 0.0005, 0.001), pytest.raises(KeyboardInterrupt):
            run(own, LONG, epochs=20, batch=128)
    run(own, LONG, batch=128)
    undisturbed = begin(LONG)
    run(undisturbed, LONG, batch=128)
    assert same_bits(own.state(), undisturbed.state())


# --- what is not there ------------------------------------------------------------------------

STARVED = """
import resource, sys
import numpy as np
from test_native_threads import SMALL, begin, run
from rowwise.errors import EngineError
run(begin(SMALL, threads=2), SMALL)  # everything is loaded
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + 150 * 2**20  # not enough for the stacks of 200 threads
resource.setrlimit(resource.RLIMIT_AS, (room, room))
own = begin(SMALL, threads=200)
try:
    run(own, SMALL)
except EngineError as error:
    print(error)
run(begin(SMALL, threads=2), SMALL)
print("goes on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
def test_a_system_that_gives_no_thread_is_told_and_ends_nothing() -> None:
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    told = subprocess.run(
        [sys.executable, "-c", STARVED],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = told.stdout.splitlines()
    assert (told.returncode, lines[-1:]) == (0, ["goes on"]), told.stderr
    assert lines[0].startswith("the native engine: ")
    assert "reduce" in lines[0]


# --- long ones --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=200)
@given(after_s=st.floats(0, 0.02), threads=st.integers(1, 4), more=st.lists(st.floats(0, 0.002)))
def test_ctrl_c_at_any_moment_leaves_a_trainer_that_works(
    after_s: float, threads: int, more: list[float]
) -> None:
    own = begin(SMALL, threads=threads)
    with interrupting(after_s, *more[:3]), pytest.raises(KeyboardInterrupt):
        run(own, SMALL, epochs=1000)
    assert np.isfinite(own.evaluate(SMALL.images, SMALL.labels)[0])
    assert all(np.isfinite(v).all() for v in own.state().values())


def _resident_bytes() -> int:
    with open("/proc/self/statm") as told:
        return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_ten_thousand_fits_and_frees_do_not_grow_memory() -> None:
    def fit() -> None:
        own = begin(SMALL)
        order = np.arange(64)
        own.run(order, batch=32, first_step=0, rates=np.full(2, 0.01))
        own.evaluate(SMALL.images[:40], SMALL.labels[:40])
        own.gradients(order[:3])
        own.state()
        reader = native.Reader(SMALL.network, SMALL.weights, threads=2)
        reader.predict(SMALL.images[:70])
        reader.states(SMALL.images[:5], "bidirectional_lstm")

    resident = []
    for number in range(1, 10_001):
        fit()
        if number in (1000, 10_000):
            resident.append(_resident_bytes())
    grown = resident[1] - resident[0]
    assert grown < 4 * 2**20, f"9,000 fits have taken {grown / 2**20:.1f} MiB"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_forks_in_the_middle_of_calls_disturb_nobody() -> None:
    expected: Any = end_of(SMALL)
    own, ended = begin(SMALL), threading.Event()

    def train_on() -> None:
        while not ended.is_set():
            run(own, SMALL)

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train_on)
        codes = [in_fork(lambda: same_bits(end_of(SMALL), expected)) for _ in range(1000)]
        ended.set()
        training.result()
    assert set(codes) == {0}
