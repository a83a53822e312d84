"""Clients of serving.py that wrk cannot be: at a pace of their own, and badly behaved."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

GOOD = ("good",)
BAD = ("malformed", "slow", "cut off")
DRIP_S, DRIPS = 0.2, 10  # a slow body: a byte now and then
ANSWER_S = 20.0


def request(body: bytes, *, length: int | None = None) -> bytes:
    """A POST of a picture, as bytes."""
    head = (
        "POST /v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, read to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    lengths = [int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")]
    await reader.readexactly(lengths[0] if lengths else 0)
    return int(lines[0].split()[1])


async def steady(
    port: int, bodies: Sequence[bytes], *, rate: float, seconds: float, connections: int
) -> tuple[list[float], int]:
    """Requests at an even pace over kept connections: seconds of each, from the moment at which it
    was due, and how many failed.
    """
    taken: list[float] = []
    failed = 0
    numbers = itertools.count()
    start = time.perf_counter() + 0.2
    count = int(rate * seconds)

    async def one() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (number := next(numbers)) < count:
            due = start + number / rate
            if (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            try:
                writer.write(request(bodies[number % len(bodies)]))
                code = await asyncio.wait_for(_answer(reader), ANSWER_S)
                failed += code != 200
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                failed += 1
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            taken.append(time.perf_counter() - due)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return taken, failed


async def strangers(
    port: int, body: bytes, *, kinds: Sequence[str], rate: float, seconds: float
) -> dict[str, int]:
    """Requests at an even pace, one kind after the other, each over a connection of its own: how
    many there were, by kind and answer.
    """
    told: dict[str, int] = {}
    start = time.perf_counter()
    under_way: set[asyncio.Task[None]] = set()

    async def one(kind: str) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            code = await asyncio.wait_for(_sent(kind, body, reader, writer), ANSWER_S)
            writer.close()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            code = 0
        name = f"{kind}: {code or 'no answer'}"
        told[name] = told.get(name, 0) + 1

    for number in range(int(rate * seconds)):
        due = start + number / rate
        if (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        task = asyncio.create_task(one(kinds[number % len(kinds)]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    return told


async def _sent(
    kind: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> int:
    if kind == "good":
        writer.write(request(body))
        return await _answer(reader)
    if kind == "malformed":
        writer.write(request(b"\x89PNG\r\n\x1a\n" + body[40:]))
        return await _answer(reader)
    if kind == "cut off":
        writer.write(request(body[:50], length=len(body)))
        await writer.drain()
        await asyncio.sleep(0.05)
        return 0
    writer.write(request(body[:DRIPS], length=len(body)))
    for at in range(DRIPS, 2 * DRIPS):
        await asyncio.sleep(DRIP_S)
        writer.write(body[at : at + 1])
    writer.write(body[2 * DRIPS :])
    return await _answer(reader)
