"""The sockets of workers: connections are dealt out, wait, and pass by one that is shut."""

from __future__ import annotations

import socket
import sys

import pytest

pytest.importorskip("fastapi", reason="needs FastAPI: pip install 'rowwise[serve]'")

from rowwise.errors import ConfigError
from rowwise.server.configuration import Configuration
from rowwise.server.listening import Doors, listen

AT_ANY = Configuration(host="127.0.0.1", port=0, workers=2)
CALLS = 40  # both of two sets get some of so many, but for one time in 10¹¹
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone deals out connections")


@pytest.fixture
def doors():
    made = Doors(AT_ANY, listen(AT_ANY), 2)
    yield made
    made.close()


def taken(sockets: list[socket.socket]) -> int:
    """How many connections wait at these sockets."""
    count = 0
    for one in sockets:
        while True:
            try:
                one.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
    return count


def call(port: int, count: int = CALLS) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(count)]


def hang_up(calls: list[socket.socket]) -> None:
    for one in calls:
        one.close()


def assert_dealt_out(doors: Doors) -> None:
    """Every connection is taken, and both doors take some."""
    calls = call(doors.port)
    counts = [taken(doors.of(place)) for place in (0, 1)]
    hang_up(calls)
    assert sum(counts) == CALLS
    assert min(counts) > 0


@linux
def test_connections_are_dealt_out(doors):
    assert_dealt_out(doors)


@linux
def test_a_door_that_is_shut_is_passed_by_until_it_opens_again(doors):
    doors.shut(0)
    doors.shut(0)
    calls = call(doors.port)
    assert taken(doors.of(1)) == CALLS
    hang_up(calls)
    again = doors.of(0)
    assert again[0].getsockname()[1] == doors.port
    assert_dealt_out(doors)


@linux
def test_a_port_on_which_another_server_deals_out_is_taken(doors):
    with pytest.raises(ConfigError, match="Address already in use"):
        listen(AT_ANY.model_copy(update={"port": doors.port}))


def test_elsewhere_all_share_what_was_given(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    given = listen(AT_ANY)
    doors = Doors(AT_ANY, given, 3)
    assert all(doors.of(place) is given for place in range(3))
    doors.shut(1)
    calls = call(doors.port, 3)
    assert taken(doors.of(1)) == 3
    hang_up(calls)
    doors.close()
    with pytest.raises(OSError, match="refused"):
        call(doors.port, 1)
