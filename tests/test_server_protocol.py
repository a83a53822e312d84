"""Connections, over real sockets: heads, what is sent ahead, bodies that nobody wants, room."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time

import pytest
from made_models import field
from made_server import application, png, recognisers, until

from rowwise.server import explaining, process, protocol
from rowwise.server.configuration import Configuration
from rowwise.server.listening import listen

FILE = png(field(3))
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Served:
    """An application behind our protocol, served by a thread."""

    def __init__(self) -> None:
        configuration = Configuration(port=0, grace_s=1)
        self.app = application(models=recognisers())
        self._sockets = listen(configuration)
        self.address = self._sockets[0].getsockname()
        self._server = process.Server(process._settings(self.app, configuration, None))
        self._thread = threading.Thread(target=self._server.run, args=(self._sockets,))
        self._thread.start()
        until(lambda: self._server.started)

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def served():
    made = Served()
    yield made
    made.stop()


@pytest.fixture
def connect(served):
    made: list[socket.socket] = []

    def connection() -> socket.socket:
        made.append(socket.create_connection(served.address, timeout=10))
        return made[-1]

    yield connection
    for one in made:
        one.close()
    until(lambda: not served.connections)


def answer(made: socket.socket) -> tuple[int, bytes]:
    """Status and all of an answer that ends with its connection, or with its body."""
    text = b""
    while b"\r\n\r\n" not in text or len(text.partition(b"\r\n\r\n")[2]) < _length(text):
        more = made.recv(65_536)
        assert more, text
        text += more
    return int(text.split()[1]), text


def _length(text: bytes) -> int:
    head = text.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])


def ended(made: socket.socket) -> bool:
    """Whether the server ends the connection, with nothing more said."""
    try:
        return made.recv(65_536) == b""
    except ConnectionResetError:
        return True


def pour(made: socket.socket, part: bytes, most: int) -> int:
    """How much of a part, again and again, is taken before the connection is closed."""
    sent = 0
    try:
        while sent < most:
            made.sendall(part)
            sent += len(part)
    except (ConnectionError, TimeoutError):
        pass
    return sent


# --- heads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X-Large: " + b"a" * 70_000 + b"\r\n\r\n",
        GET + b"X-Large: " + b"a" * 200_000,
        GET + b"X-Large" * 20_000,
        GET + b"".join(b"X-%d: y\r\n" % number for number in range(10_000)) + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["header", "cut off", "name", "many", "target"],
)
def test_a_large_head_is_refused(connect, head):
    made = connect()
    made.sendall(head)
    status, text = answer(made)
    assert status == 431
    assert b"at most 65,536 bytes" in text
    assert ended(made)


def test_a_head_within_the_limit_is_taken(connect):
    made = connect()
    made.sendall(GET + b"X-Large: " + b"a" * 60_000 + b"\r\n\r\n")
    assert answer(made)[0] == 200


def test_trailers_are_limited_too(connect):
    made = connect()
    made.sendall(POST + CHUNKED + b"1\r\nx\r\n0\r\nX-Large: ")
    assert pour(made, b"a" * 65_536, 60_000_000) < 20_000_000


def test_a_slow_head_and_silence_are_ended(connect, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    slow, silent = connect(), connect()
    slow.sendall(GET)
    assert answer(slow)[0] == 408
    assert ended(slow)
    assert ended(silent)


def test_a_kept_connection_may_rest_longer_than_a_head_may_take(connect, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    made = connect()
    for _ in range(2):
        made.sendall(GET + b"\r\n")
        assert answer(made)[0] == 200
        time.sleep(0.5)


def test_few_requests_are_taken_ahead(connect):
    made = connect()
    made.sendall((GET + b"\r\n") * 5)
    text = b""
    while text.count(b"HTTP/1.1 200") < 5:
        text += made.recv(65_536)
    assert pour(connect(), (GET + b"\r\n") * 100, 50_000_000) < 50_000_000


# --- connections --------------------------------------------------------------------------------


def test_where_there_is_no_room_the_one_that_was_idle_longest_goes(served, connect, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 4)
    old = []
    for number in range(4):
        old.append(connect())
        until(lambda count=number + 1: served.connections == count)
    old[0].sendall(GET + b"\r\n")  # it is no longer the one that was idle longest
    assert answer(old[0])[0] == 200
    new = connect()
    new.sendall(GET + b"\r\n")
    assert answer(new)[0] == 200
    assert ended(old[1])
    old[0].sendall(GET + b"\r\n")
    assert answer(old[0])[0] == 200


# --- bodies that are not wanted -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /nothing HTTP/1.1\r\nHost: localhost\r\n", 404),
        (b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\n", 405),
        (POST.replace(b"/read", b"/read?model=none"), 404),
        (POST.replace(b"image/png", b"text/plain"), 415),
        (POST.replace(b"localhost", b"other.example"), 421),
        (GET, 200),
    ],
)
def test_a_body_without_an_end_that_nobody_wants_ends_its_connection(connect, head, status):
    made = connect()
    made.sendall(head + CHUNKED)
    assert pour(made, b"10000\r\n" + b"a" * 65_536 + b"\r\n", 60_000_000) < 20_000_000
    made = connect()
    made.sendall(head + CHUNKED + b"1\r\nx\r\n")
    got, text = answer(made)
    assert (got, b"connection: close" in text) == (status, True)


def test_a_small_body_that_nobody_wants_leaves_the_connection(connect):
    made = connect()
    for _ in range(2):
        made.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        assert answer(made)[0] == 404


def test_what_its_client_has_left_is_not_done(served, connect, monkeypatch):
    lane, go, done = served.app.service.lane, threading.Event(), []
    monkeypatch.setattr(lane, "most", 3)

    def slow(*arguments, **options):
        done.append(1)
        go.wait(10)
        raise explaining.busy("explanations", "a test")

    monkeypatch.setattr(explaining, "explained", slow)
    head = POST.replace(b"/read", b"/read?explain=true")
    whole = head + b"Content-Length: %d\r\n\r\n" % len(FILE) + FILE
    made = [connect() for _ in range(3)]
    for one in made:
        one.sendall(whole)
    until(lambda: lane.waiting == 3 and done)
    for one in made:
        one.close()
    until(lambda: lane.waiting == 0)
    go.set()
    monkeypatch.undo()
    last = connect()
    last.sendall(whole)
    status, text = answer(last)
    assert (status, len(done)) == (200, 1)
    assert json.loads(text.partition(b"\r\n\r\n")[2])["explanation"]


def test_an_answer_that_nobody_reads_is_not_kept(served, connect, monkeypatch):
    monkeypatch.setattr(protocol, "UNREAD_S", 0.2)
    made = connect()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    async def send() -> None:
        for one in list(served._server.server_state.connections):
            one.transport.write(b"x" * 20_000_000)

    until(lambda: served.connections == 1)
    loop = next(iter(served._server.server_state.connections)).loop
    asyncio.run_coroutine_threadsafe(send(), loop).result(5)
    until(lambda: not served.connections, 5)
