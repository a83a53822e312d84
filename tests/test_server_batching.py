"""Batches: what comes together is read together, in order, and never held up by what is slow."""

from __future__ import annotations

import asyncio
import threading
import time

import made_models
import numpy as np
import pytest
from made_models import field, page
from made_server import RAW, Client, application, png, problem, recognisers

from rowwise.recognise import Recogniser
from rowwise.server.batching import QUICK_BYTES, Batcher, is_quick

FIELDS = [field(d) for d in range(10)]


@pytest.fixture(scope="module")
def readers():
    return recognisers()


class Watched(Recogniser):
    """Notes how many pictures it reads at once, and waits for a sign before the first."""

    def __init__(self) -> None:
        super().__init__(made_models.rows(), threads=1)
        self.counts: list[int] = []
        self.sign = threading.Event()

    def probabilities(self, digits):
        self.sign.wait(10)
        self.counts.append(len(digits))
        return super().probabilities(digits)


def read_together(batcher, recogniser, contents):
    """Ask for all at once; let the first be read when the others wait."""

    async def ask():
        asked = [asyncio.ensure_future(batcher.read(recogniser, contents[0]))]
        await asyncio.sleep(0.1)
        asked += [asyncio.ensure_future(batcher.read(recogniser, one)) for one in contents[1:]]
        await asyncio.sleep(0.1)
        recogniser.sign.set()
        return await asyncio.gather(*asked)

    try:
        return asyncio.run(ask())
    finally:
        batcher.stop()


def batcher(**options) -> Batcher:
    defaults = {"batch": 64, "wait_ms": 0.0, "most": 1000, "watch": lambda *told: None}
    return Batcher(**{**defaults, **options})


def test_what_waits_is_read_as_one_batch():
    watched = Watched()
    told = read_together(batcher(), watched, [png(one) for one in FIELDS])
    assert watched.counts == [1, 9]
    assert [len(one) for one in told] == [1] * 10
    for [reading], one in zip(told, FIELDS, strict=True):
        assert reading.digit == watched.read(one).digit


def test_a_batch_has_its_limit():
    watched = Watched()
    read_together(batcher(batch=4), watched, [png(one) for one in FIELDS])
    assert watched.counts == [1, 4, 4, 1]


def test_kinds_are_mixed_and_stay_in_order(readers):
    watched = Watched()
    from rowwise.recognise import prepare

    fields = np.stack(FIELDS[:3])
    contents = [png(FIELDS[1]), fields, prepare(page(5)), b"\x89PNG broken", fields[:1]]
    told = read_together(batcher(), watched, contents)
    assert [len(one) for one in told] == [1, 3, 1, 1, 1]
    assert told[3][0].__class__.__name__ == "PictureError"
    plain = Recogniser(made_models.rows(), threads=1)
    assert told[2][0].digit == plain.read(page(5)).digit
    assert [r.digit for r in told[1]] == [r.digit for r in plain.read_many(fields)]


def test_models_are_read_apart(readers):
    client = Client(application(models=readers))
    calls = [(f"/v1/read?model={('best', 'rows')[i % 2]}", png(FIELDS[i]), RAW) for i in range(10)]
    for i, answer in enumerate(client.together(*calls)):
        name = ("best", "rows")[i % 2]
        assert answer.json()["model"] == name
        assert answer.json()["digit"] == readers[name].read(FIELDS[i]).digit
    client.close()


def test_one_that_is_alone_does_not_wait():
    waiting = batcher(wait_ms=500)
    reader = Recogniser(made_models.rows(), threads=1)

    async def ask() -> float:
        waiting.enter(1)
        await waiting.read(reader, png(FIELDS[1]))
        start = time.perf_counter()
        await waiting.read(reader, png(FIELDS[1]))
        return time.perf_counter() - start

    assert asyncio.run(ask()) < 0.4
    waiting.stop()


def test_others_under_way_are_waited_for_but_not_long():
    watched = Watched()
    watched.sign.set()
    waiting = batcher(wait_ms=300)

    async def ask() -> None:
        for _ in range(3):
            waiting.enter(1)

        async def late(seconds: float) -> None:
            await asyncio.sleep(seconds)
            await waiting.read(watched, png(FIELDS[1]))
            waiting.leave(1)

        await asyncio.gather(late(0), late(0.05), late(0.8))

    asyncio.run(ask())
    waiting.stop()
    assert watched.counts == [2, 1]


def test_what_was_given_up_harms_nobody():
    watched = Watched()
    made = batcher()

    async def ask():
        first = asyncio.ensure_future(made.read(watched, png(FIELDS[1])))
        second = asyncio.ensure_future(made.read(watched, png(FIELDS[2])))
        await asyncio.sleep(0.05)
        first.cancel()
        watched.sign.set()
        return await second

    assert asyncio.run(ask())[0].digit is not None
    made.stop()


def test_single_pictures_go_before_many_and_many_go_on():
    watched = Watched()
    many = np.stack(FIELDS[:4])
    contents = [png(FIELDS[0]), many, many, *[png(one) for one in FIELDS[:6]]]
    told = read_together(batcher(batch=4), watched, contents)
    assert watched.counts == [1, 8, 6]  # four and four, two and four
    assert [len(one) for one in told] == [1, 4, 4, *[1] * 6]


def test_what_was_given_up_is_not_read():
    watched, made = Watched(), batcher()

    async def ask():
        first = asyncio.ensure_future(made.read(watched, png(FIELDS[1])))
        await asyncio.sleep(0.05)
        rest = [asyncio.ensure_future(made.read(watched, png(one))) for one in FIELDS[:5]]
        await asyncio.sleep(0.05)
        for one in rest[:4]:
            one.cancel()
        await asyncio.sleep(0)
        watched.sign.set()
        return await asyncio.gather(first, rest[4])

    assert len(asyncio.run(ask())) == 2
    made.stop()
    assert watched.counts == [1, 1]


def test_a_fault_is_told_to_all_that_wait_and_the_thread_goes_on(monkeypatch):
    reader, made = Recogniser(made_models.rows(), threads=1), batcher()

    async def ask():
        return await made.read(reader, png(FIELDS[1]))

    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_fields", lambda arrays: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(ask())
    assert asyncio.run(ask())[0].digit is not None
    made.stop()


def test_a_full_queue_says_when_to_come_again(readers):
    client = Client(application(models=readers, queue=20, max_pictures=15))
    many = np.stack(FIELDS).tobytes()
    answers = client.together(*[("/v1/read-many", many, RAW)] * 4)
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200, 200, 503, 503]
    refused = next(answer for answer in answers if answer.status_code == 503)
    problem(refused, 503, "at most 20 pictures wait")
    assert refused.headers["retry-after"] == "1"
    assert client.app.service.batcher.waiting == 0
    assert client.post("/v1/read", png(FIELDS[0])).status_code == 200
    client.close()


def test_an_explanation_holds_up_no_reading_and_only_few_wait(readers, monkeypatch):
    client = Client(application(models=readers))
    lane, go = client.app.service.lane, threading.Event()
    lane.most = 2
    told = []
    real = lane.run

    async def slow(work):
        return await real(lambda: (go.wait(20), work())[1])

    monkeypatch.setattr(lane, "run", slow)
    file = png(FIELDS[4])

    async def all_of_them():
        post = client._client.post
        why = [asyncio.ensure_future(post("/v1/read?explain=1", content=file, headers=RAW))
               for _ in range(3)]  # fmt: skip
        await asyncio.sleep(0.2)
        told.append(await post("/v1/read", content=file, headers=RAW))
        go.set()
        return await asyncio.gather(*why)

    answers = client._loop.run_until_complete(all_of_them())
    assert told[0].status_code == 200
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503]
    client.close()


def test_a_large_picture_is_decoded_beside_the_readings(readers, monkeypatch):
    client = Client(application(models=readers))
    from rowwise.server import decoding

    go, real = threading.Event(), decoding.prepare

    def slow(source, **options):
        go.wait(20)
        return real(source, **options)

    monkeypatch.setattr(decoding, "prepare", slow)

    async def both():
        post = client._client.post
        large = asyncio.ensure_future(post("/v1/read", content=png(page(5)), headers=RAW))
        await asyncio.sleep(0.1)
        small = await post("/v1/read", content=png(FIELDS[1]), headers=RAW)
        done = large.done()
        go.set()
        return small, done, await large

    small, done, large = client._loop.run_until_complete(both())
    assert (small.status_code, done, large.status_code) == (200, False, 200)
    client.close()


def test_what_is_quick():
    assert is_quick(png(FIELDS[0]))
    assert not is_quick(png(page(5)))
    assert not is_quick(png(np.zeros((28, 27), np.uint8)))
    assert not is_quick(png(FIELDS[0]) + b"x" * QUICK_BYTES)
    assert not is_quick(png(FIELDS[0], "JPEG"))
