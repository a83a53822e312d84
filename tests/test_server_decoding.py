"""Decoding within limits of pixels: asked before any is decoded, large pictures one at a time."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import threading

import numpy as np
import pytest
from made_models import page
from made_server import PNG, Client, application, png, problem, recognisers

from rowwise.server import decoding
from rowwise.server.decoding import LARGE_PIXELS, Decoders

SIDE = 1100
LARGE = png(np.full((SIDE, SIDE), 255, np.uint8))  # little over LARGE_PIXELS, few kB


@pytest.fixture(scope="module")
def readers():
    return recognisers()


@pytest.fixture
def decoders():
    made = Decoders(2, max_pixels=2_000_000, max_request_pixels=3_000_000)
    yield made
    made.stop()


def test_the_pixels_of_a_request_are_limited_before_any_is_decoded(readers, monkeypatch):
    client = Client(application(models=readers, max_request_pixels=25_000_000))

    def never(*arguments, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr(decoding, "prepare", never)
    many = {"pictures": [base64.b64encode(LARGE).decode()] * 30}
    told = problem(client.post("/v1/read-many", json=many), 413, "at most 25,000,000 pixels")
    assert f"got {30 * SIDE * SIDE:,}" in told["detail"]
    assert client.app.service.decoders.waiting == 0
    assert client.app.service.batcher.waiting == 0
    client.close()


def test_one_picture_may_have_what_a_picture_may(readers):
    client = Client(application(models=readers, max_request_pixels=784))
    assert client.post("/v1/read", LARGE, headers=PNG).status_code == 200
    client.close()


def test_what_waits_is_limited_and_given_back(decoders):
    async def ask() -> None:
        async with decoders.admitted([LARGE, LARGE]):
            assert decoders.waiting == 2 * SIDE * SIDE
            decoders.waiting += 10_000_000
            with pytest.raises(decoding.busy("", "").__class__, match="no room"):
                async with decoders.admitted([LARGE]):
                    pass
            decoders.waiting -= 10_000_000
        assert decoders.waiting == 0

    asyncio.run(ask())


def test_large_pictures_are_decoded_one_at_a_time_by_a_thread_that_gives_way(decoders, monkeypatch):
    at_once, most, names, real = [0], [0], set(), decoding.prepare
    own = os.getpriority(os.PRIO_PROCESS, 0) if sys.platform == "linux" else 0

    def watched(source, **options):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        names.add(threading.current_thread().name)
        if sys.platform == "linux":
            given = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            assert given == min(19, own + decoding.MORE_NICE)
        try:
            return real(source, **options)
        finally:
            at_once[0] -= 1

    async def ask():
        async with decoders.admitted([LARGE, LARGE]) as sized:
            assert all(one.pixels > LARGE_PIXELS for one in sized)
            return await decoders.prepared(sized)

    monkeypatch.setattr(decoding, "prepare", watched)
    prepared = asyncio.run(ask())
    assert [one.error for one in prepared] == [None, None]
    assert (most, names) == ([1], {"rowwise-large_0"})


def test_what_is_given_up_before_its_turn_is_not_decoded(decoders, monkeypatch):
    go, decoded = threading.Event(), []
    monkeypatch.setattr(decoding, "prepare", lambda source, **_: decoded.append(go.wait(10)) or [0])

    async def ask() -> None:
        async with decoders.admitted([LARGE, LARGE]) as sized:
            first = asyncio.ensure_future(decoders.prepared(sized[:1]))
            second = asyncio.ensure_future(decoders.prepared(sized[1:]))
            await asyncio.sleep(0.1)
            second.cancel()
            await asyncio.sleep(0)
            go.set()
            await first

    asyncio.run(ask())
    decoders._large.shutdown(wait=True)
    assert decoded == [True]


def test_pictures_beyond_the_limit_of_one_count_nothing(decoders):
    async def ask() -> list[int]:
        huge = png(np.zeros((2000, 1001), np.uint8))
        async with decoders.admitted([huge] * 5 + [page(3), b"no picture"]) as sized:
            return [one.pixels for one in sized]

    assert asyncio.run(ask()) == [0] * 5 + [page(3).size, 0]
