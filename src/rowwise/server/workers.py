"""Several processes that serve one port: started, watched, started again, ended together.

Not uvicorn's supervisor, nor gunicorn's: their workers all take connections from one socket, and
the quickest to wake takes most of them; uvicorn's outlive a parent that is killed, are started
again without a pause when they cannot start, and gunicorn's are forked, which the engine's threads
do not survive. Here each has a socket of its own, learns its settings where no list of processes
shows them, ends with its parent, and leaves what it counted.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rowwise.errors import ConfigError, RowwiseError
from rowwise.server import create_app, metrics
from rowwise.server.configuration import Configuration
from rowwise.server.listening import Doors, greeting
from rowwise.server.log import LOGGER, logging_to
from rowwise.server.metrics import Folder
from rowwise.server.process import leave, say, serve

LOOK_S = 0.05  # between two looks at the workers
SETTLED_S = 10.0  # a worker that lived as long is started again at once
LONGEST_PAUSE_S = 30.0
START_S = 120.0  # a worker has to be ready
SILENT_S = 10.0  # a worker that has said nothing for so long hangs: it is killed, and replaced
LEAST_GRACE_S = 1.0

# The path of modules is handed on: a worker finds what its parent found.
PROGRAM = """
import json, sys
told = json.loads(sys.stdin.readline())
sys.path[:] = told["path"]
from rowwise.server.workers import work
work(told)
"""


class Worker:
    """A process that serves. It is told all by its stdin, whose end tells it that its parent died;
    it tells by a pipe that it is ready, or why not, and then every second that it lives.
    """

    def __init__(
        self, configuration: Configuration, sockets: list[socket.socket], folder: Folder
    ) -> None:
        self.began = self._heard = time.monotonic()
        self.models = list[str]()
        self._lived_s: float | None = None
        self._text = b""
        self._told: int | None
        self._told, telling = os.pipe()
        descriptors = [one.fileno() for one in sockets]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM],
            stdin=subprocess.PIPE,
            pass_fds=[*descriptors, telling, folder.lock],
            env=os.environ | {metrics.FOLDER: str(folder.path)},
            start_new_session=True,  # Ctrl-C is the parent's, who passes it on
        )
        os.close(telling)
        told = {
            "path": sys.path,
            "configuration": configuration.model_dump(mode="json", exclude_unset=True),
            "sockets": descriptors,
            "telling": telling,
            "lock": folder.lock,
        }
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, which those see who watch
            self.process.stdin.write(json.dumps(told).encode() + b"\n")
            self.process.stdin.flush()

    def hear(self, wait_s: float = 0.0) -> None:
        """Take in what it says within some time: its models, once it is ready; that it lives.

        Raises ConfigError where it ended before it was ready, with its reason.
        """
        if self._told is None or not select.select([self._told], [], [], wait_s)[0]:
            return
        more = os.read(self._told, 65_536)
        if more:
            self._heard = time.monotonic()
        else:
            os.close(self._told)
            self._told = None
        if self.models:
            return
        self._text += more
        line, end, _ = self._text.partition(b"\n")
        if more and not end:
            return
        told: dict[str, Any] = json.loads(line or b"{}")
        if "models" not in told:
            raise ConfigError(told.get("error", "a worker ended before it was ready"))
        self.models = told["models"]

    def hangs(self) -> bool:
        """Whether it lives, and has said nothing for too long."""
        limit = SILENT_S if self.models else START_S
        return self.lived_s() is None and time.monotonic() - self._heard > limit

    def lived_s(self) -> float | None:
        """Seconds from its start to its end; nothing while it lives."""
        if self._lived_s is None and self.process.poll() is not None:
            self._lived_s = time.monotonic() - self.began
        return self._lived_s

    def signal(self, number: int) -> None:
        """Send it a signal, where it still is."""
        self.process.send_signal(number)

    def close(self) -> None:
        """Give back its pipes."""
        if self._told is not None:
            os.close(self._told)
            self._told = None
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()


class Workers:
    """The processes of one server, and what becomes of them."""

    def __init__(self, configuration: Configuration, sockets: list[socket.socket]) -> None:
        self._configuration = configuration
        self._doors = Doors(configuration, sockets, configuration.workers)
        self._ending = 0  # signals that asked for it

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit code. Raises RowwiseError where none can start.

        A second signal ends the workers at once.
        """
        before = {one: signal.signal(one, self._asked) for one in (signal.SIGINT, signal.SIGTERM)}
        workers: list[Worker] = []
        try:
            with Folder() as folder, logging_to():
                try:
                    return self._run(folder, workers)
                finally:
                    for worker in workers:
                        if worker.process.poll() is None:
                            worker.process.kill()
                            worker.process.wait()
                        worker.close()
        finally:
            self._doors.close()
            for one, old in before.items():
                signal.signal(one, old)

    def _run(self, folder: Folder, workers: list[Worker]) -> int:
        for place in range(self._configuration.workers):
            workers.append(Worker(self._configuration, self._doors.of(place), folder))
        until = time.monotonic() + START_S
        while any(not worker.models for worker in workers) and not self._ending:
            for worker in workers:
                worker.hear(LOOK_S)
            if time.monotonic() > until:
                raise ConfigError(f"a worker was not ready within {START_S:.0f} s; give it fewer")
        if not self._ending:
            say(greeting(self._configuration, self._doors.port, workers[0].models))
        pauses = [0.0] * len(workers)
        while not self._ending:
            for place, worker in enumerate(workers):
                self._look_after(worker)
                lived_s = worker.lived_s()
                if lived_s is None:
                    continue
                if lived_s > SETTLED_S:
                    pauses[place] = 0.0
                if pauses[place]:
                    self._doors.shut(place)
                if time.monotonic() > worker.began + lived_s + pauses[place]:
                    pauses[place] = min(LONGEST_PAUSE_S, max(0.5, 2 * pauses[place]))
                    workers[place] = self._another(worker, place, folder)
            time.sleep(LOOK_S)
        return self._end(workers)

    def _look_after(self, worker: Worker) -> None:
        try:
            worker.hear()
        except ConfigError as error:  # that a restarted one cannot start is told, and tried again
            LOGGER.error("%s", error)
        if worker.hangs():
            LOGGER.error("worker %d has not answered for a while: it is killed", worker.process.pid)
            worker.process.kill()

    def _another(self, old: Worker, place: int, folder: Folder) -> Worker:
        """A worker in the place of one that has ended."""
        code = old.process.returncode
        how = f"signal {-code}" if code < 0 else f"the exit code {code}"
        LOGGER.error("worker %d ended with %s, another one takes its place", old.process.pid, how)
        old.close()
        metrics.forget(old.process.pid, folder.path)
        return Worker(self._configuration, self._doors.of(place), folder)

    def _end(self, workers: list[Worker]) -> int:
        self._doors.close()
        workers = [worker for worker in workers if worker.process.poll() is None]
        for worker in workers:
            worker.signal(signal.SIGTERM)
        until = time.monotonic() + max(self._configuration.grace_s, LEAST_GRACE_S)
        while any(worker.process.poll() is None for worker in workers):
            if self._ending > 1 or time.monotonic() > until:
                return 1
            time.sleep(LOOK_S)
        # One that was still starting has not yet learnt to end at a SIGTERM by itself.
        proper = (0, -signal.SIGTERM)
        return int(any(worker.process.returncode not in proper for worker in workers))

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self._ending += 1


def work(told: dict[str, Any]) -> NoReturn:
    """What a worker does, to its end."""
    configuration = Configuration.model_validate(told["configuration"])
    sockets = [socket.socket(fileno=descriptor) for descriptor in told["sockets"]]
    telling: int = told["telling"]
    try:
        app = create_app(configuration)
    except RowwiseError as error:
        os.write(telling, json.dumps({"error": str(error)}).encode() + b"\n")
        leave(1)
    os.set_blocking(telling, False)

    def ready() -> None:
        os.write(telling, json.dumps({"models": app.service.shelf.names}).encode() + b"\n")

    def beat() -> None:
        with suppress(BlockingIOError, BrokenPipeError):  # a parent that is stopped, or has gone
            os.write(telling, b".")

    code = serve(app, configuration, sockets, ready=ready, beat=beat, watch=_orphaned, force=False)
    metrics.remove_if_last(Path(os.environ[metrics.FOLDER]), told["lock"])
    leave(code)


def _orphaned(end: Callable[[], None]) -> None:
    """End when the parent has: its end of our stdin is closed then."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        end()

    threading.Thread(target=wait, name="rowwise-parent", daemon=True).start()
