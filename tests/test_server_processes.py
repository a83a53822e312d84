"""Real processes: how they start, what they say, how they end, and what a killed worker leaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import made_models
import numpy as np
import pytest
from made_models import field
from made_server import KEY, PNG, children, png, processes, served, until

from rowwise.server import workers
from rowwise.server.configuration import Configuration
from rowwise.server.listening import listen
from rowwise.server.metrics import Folder

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="processes and signals as POSIX has them"
)

FILE = png(field(3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("served")
    made_models.rows(promises=(made_models.PROMISE,)).save(place / "rows.safetensors")
    return place


def read(url: str, client: httpx.Client | None = None) -> int:
    send = client.post if client else httpx.post
    return send(f"{url}/v1/read", content=FILE, headers=PNG, timeout=20).status_code


# --- one process --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_with_0(folder, number):
    with served(folder, "--body-timeout-s", "5") as process:
        url = process.url()
        assert process.lines[0] == f"rowwise serves {url} with rows; Ctrl-C or SIGTERM ends it"
        assert not url.endswith(":0")
        assert read(url) == 200
        process.process.send_signal(number)
        assert process.wait() == 0
        [record] = process.records()
        assert (record["route"], record["status"]) == ("/v1/read", 200)
        assert len(process.lines) == 2


def test_what_is_in_flight_is_finished_and_nothing_new_is_taken(folder):
    with served(folder, "--grace-s", "10") as process:
        url = process.url()
        port = int(url.rpartition(":")[2])
        idle = httpx.Client()  # a connection that is kept alive
        assert idle.get(f"{url}/readyz").status_code == 200
        slow = socket.create_connection(("127.0.0.1", port))
        head = "POST /v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        slow.sendall(f"{head}Content-Length: {len(FILE)}\r\n\r\n".encode() + FILE[:20])
        time.sleep(0.3)
        process.process.send_signal(signal.SIGTERM)
        until(lambda: refused(port))
        assert process.process.poll() is None
        slow.sendall(FILE[20:])
        answer = slow.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200")
        assert process.wait() == 0
        slow.close()
        idle.close()


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_does_not_end_is_given_up_after_the_grace(folder):
    with served(folder, "--grace-s", "1") as process:
        port = int(process.url().rpartition(":")[2])
        stuck = socket.create_connection(("127.0.0.1", port))
        stuck.sendall(b"POST /v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                      b"Content-Length: 100\r\n\r\nx")  # fmt: skip
        time.sleep(0.3)
        start = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        assert 0.5 < time.monotonic() - start < 8
        stuck.close()


def test_a_second_signal_ends_it_at_once(folder):
    with served(folder, "--grace-s", "30") as process:
        port = int(process.url().rpartition(":")[2])
        stuck = socket.create_connection(("127.0.0.1", port))
        stuck.sendall(b"POST /v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                      b"Content-Length: 100\r\n\r\nx")  # fmt: skip
        time.sleep(0.3)
        process.process.send_signal(signal.SIGTERM)
        until(lambda: refused(port))
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == 1
        stuck.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_keeps_it_from_starting_is_one_line(folder, rowwise, workers, monkeypatch):
    def fails(*arguments: object) -> str:
        told = rowwise("serve", "--model", folder / "rows.safetensors", *arguments)
        assert (told.code, told.out) == (1, "")
        [line] = told.err.splitlines()
        return line

    several = ("--workers", workers)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = fails("--port", port, *several)
    assert f"127.0.0.1 port {port}: Address already in use" in told
    assert "got 'absent'" in fails("--model", "absent", "--port", 0, *several)
    assert "got 'row'; did you mean 'rows'?" in fails("--default", "row", "--port", 0, *several)
    assert "--insecure-no-auth" in fails("--host", "0.0.0.0", "--port", 0, *several)
    assert "'no.such.invalid'" in fails("--host", "no.such.invalid", *several)
    monkeypatch.setenv("ROWWISE_SERVE_PROT", "1")
    assert "did you mean 'port'" in fails(*several)


def test_wider_with_a_key_or_when_asked_for(folder):
    with served(folder, "--host", "0.0.0.0", ROWWISE_SERVE_API_KEYS=KEY) as process:
        url = process.url().replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/server").status_code == 401
        assert httpx.get(f"{url}/v1/server", headers={"X-API-Key": KEY}).status_code == 200
        command = Path(f"/proc/{process.process.pid}/cmdline").read_bytes()
        assert b"serve" in command
        assert KEY.encode() not in command
    with served(folder, "--host", "0.0.0.0", "--insecure-no-auth") as process:
        url = process.url().replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/server").status_code == 200


HEAD = b"POST /v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
MALFORMED = [
    b"\x16\x03\x01\x02\x00",
    b"GET / HTTP/9.9\r\n\r\n",
    HEAD + b"Content-Length: -5\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
]


def test_malformed_http_is_no_fault_of_ours(folder):
    with served(folder) as process:
        url = process.url()
        port = int(url.rpartition(":")[2])
        for text in MALFORMED:
            with socket.create_connection(("127.0.0.1", port)) as made:
                made.settimeout(10)
                made.sendall(text)
                answer = made.recv(1000)
                assert answer.startswith(b"HTTP/1.1 400") or answer == b""
        assert read(url) == 200
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        assert not [r for r in process.records() if r.get("level") == "error"]


# --- several ------------------------------------------------------------------------------------


def test_workers_share_a_port_and_their_numbers_and_end_with_0(folder):
    with served(folder, "--workers", "2", TMPDIR=str(folder)) as process:
        url = process.url()
        pid = process.process.pid
        assert len(children(pid)) == 2
        [numbers] = folder.glob("rowwise-serve-*")
        codes = [read(url) for _ in range(40)]
        assert codes == [200] * 40
        text = httpx.get(f"{url}/metrics").text
        assert 'rowwise_requests_total{method="POST",route="/v1/read",status="200"} 40.0' in text
        assert 'rowwise_readings_total{model="rows",outcome="accepted"} 40.0' in text
        process.process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert not numbers.exists()
        assert len(process.records()) == 41


def test_a_killed_worker_is_replaced_and_what_it_counted_stays(folder):
    with served(folder, "--workers", "2") as process:
        url = process.url()
        before = children(process.process.pid)
        assert [read(url) for _ in range(20)] == [200] * 20
        time.sleep(0.3)  # an answer is counted just after it was sent
        os.kill(before[0], signal.SIGKILL)
        after = until(lambda: [c for c in children(process.process.pid) if c not in before])
        assert [read(url) for _ in range(20)] == [200] * 20
        told = until(lambda: [r for r in process.records() if r.get("level") == "error"])
        assert told[0]["message"].startswith(f"worker {before[0]} ended with signal 9")
        line = 'rowwise_requests_total{method="POST",route="/v1/read",status="200"} 40.0'
        until(lambda: line in httpx.get(f"{url}/metrics").text)
        time.sleep(1.5)  # the new one is ready
        assert len(after) == 1
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def test_workers_do_not_outlive_their_parent_nor_its_folder_the_next_start(folder, tmp_path):
    several = {"TMPDIR": str(tmp_path)}
    with served(folder, "--workers", "2", **several) as killed:
        killed.url()
        workers = children(killed.process.pid)
        left = set(tmp_path.iterdir())
        with served(folder, "--workers", "2", **several) as living:
            url = living.url()
            kept = set(tmp_path.iterdir()) - left
            killed.process.kill()
            killed.process.wait()
            until(lambda: not [w for w in workers if alive(w)])
            with served(folder, "--workers", "2", **several) as following:
                following.url()
                there = set(tmp_path.iterdir())
            assert not left & there
            assert kept <= there
            assert "rowwise_" in httpx.get(f"{url}/metrics").text


@pytest.mark.slow
def test_a_worker_that_hangs_is_known_and_one_that_lives_is_none(folder, monkeypatch):
    monkeypatch.setattr(workers, "SILENT_S", 3.0)
    settings = Configuration(models=(str(folder / "rows.safetensors"),), port=0)
    with Folder() as counters, ExitStack() as opened:
        sockets = [opened.enter_context(one) for one in listen(settings)]
        worker = workers.Worker(settings, sockets, counters)

        def hangs() -> bool:
            worker.hear()
            return worker.hangs()

        try:
            until(lambda: worker.hear(0.1) or worker.models, 60)
            end = time.monotonic() + 3.5
            while time.monotonic() < end:
                assert not hangs()
                time.sleep(0.1)
            os.kill(worker.process.pid, signal.SIGSTOP)
            until(hangs)
        finally:
            worker.process.kill()
            worker.process.wait()
            assert not worker.hangs()
            worker.close()


def alive(pid: int) -> bool:
    return processes().get(pid, ("Z", 0))[0] != "Z"


@pytest.mark.slow
def test_under_load_workers_are_killed_and_only_what_they_held_is_lost(folder):
    with served(folder, "--workers", "2") as process:
        url = process.url()
        good, bad, stop = [0], [0], threading.Event()

        def load() -> None:
            with httpx.Client(timeout=20) as client:
                while not stop.is_set():
                    try:
                        good[0] += read(url, client) == 200
                    except httpx.TransportError:
                        bad[0] += 1

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            time.sleep(2.5)
            os.kill(children(process.process.pid)[0], signal.SIGKILL)
        time.sleep(2)
        stop.set()
        for thread in threads:
            thread.join()
        assert good[0] > 100
        # What a worker held, and what waited at its door when that was shut, as it dies again.
        assert bad[0] <= 5 * 2 * len(threads)
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


# --- what is missing ----------------------------------------------------------------------------


def test_without_its_packages_it_says_which_extra(folder):
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'fastapi' else real(n, *a)\n"
        "from rowwise.cli import main\nmain(['serve'])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.returncode == 1
    assert made.stderr.startswith("rowwise: this needs the package fastapi")
    assert "rowwise[serve]" in made.stderr


def test_runs_are_served_beside_models(folder, trained):
    with served(folder, "--runs", trained / "runs") as process:
        url = process.url()
        models = httpx.get(f"{url}/v1/models").json()
        assert models["default"] == "rows"
        assert [m["name"] for m in models["models"]] == ["rows", "tiny-s0", "tiny-s1"]
        raw = np.zeros((3, 8, 8), np.uint8)
        raw[:, 2:6, 3:5] = 255
        headers = {"content-type": "application/octet-stream"}
        many = httpx.post(
            f"{url}/v1/read-many?model=tiny-s0", content=raw.tobytes(), headers=headers
        )
        assert len(many.json()["readings"]) == 3
