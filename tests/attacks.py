"""Attacks on a server over loopback, and the honest client that must not feel them.

A program, so that both run as processes of their own: `attacks.py honest …` and `attacks.py
attack NAME …`. Every loop ends at a deadline; nothing is sent but to the port of 127.0.0.1 given.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import os
import resource
import socket
import struct
import sys
import time
import zlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
EVERY_S = 0.05  # between two requests of the honest client
CONNECTIONS = 16  # of the honest client: dealt out to both workers
ANSWER_S = 20.0  # an honest request without an answer has failed
STUCK_S = 3.0  # a server that takes no more bytes for so long has stopped reading
MEGABYTE = 1_000_000
SEND_BUFFER = 65_536
FAULTS = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError)

Told = Counter  # what an attacker did and saw
Round = Callable[[int, Told], Awaitable[None]]


def head(line: str, *, kind: str = "image/png", length: int | None = None, **others: str) -> bytes:
    """The head of a request; chunked where no length is given."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in others.items())
    text = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{size}\r\n{more}\r\n"
    return text.encode()


async def answer(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, read to its end."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    lengths = [int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")]
    await reader.readexactly(lengths[0] if lengths else 0)
    return int(lines[0].split()[1])


# --- the honest client --------------------------------------------------------------------------


async def honest(
    port: int, picture: bytes, seconds: float, key: str, patience_s: float = ANSWER_S
) -> dict[str, Any]:
    """A picture every 50 ms over kept connections: [second, wait, status] of each.

    A wait counts from the moment at which the request was due, so that one that holds up the next
    ones is not told once only. Status 0: no answer. `late_s` is the client's own worst delay.
    """
    keys = {"X_API_Key": key} if key else {}
    whole = head("POST /v1/read?model=rows", length=len(picture), **keys) + picture
    free = deque([await asyncio.open_connection(HOST, port) for _ in range(CONNECTIONS)])
    records: list[tuple[float, float, int]] = []
    start = time.perf_counter() + 0.1

    async def one(due: float) -> None:
        status = 0
        try:
            async with asyncio.timeout(patience_s):
                pair = free.popleft() if free else await asyncio.open_connection(HOST, port)
                try:
                    pair[1].write(whole)
                    status = await answer(pair[0])
                    free.append(pair)
                finally:
                    if not status:
                        pair[1].transport.abort()
        except FAULTS:
            pass
        records.append((due - start, time.perf_counter() - due, status))

    late, tasks = 0.0, []
    for number in range(round(seconds / EVERY_S)):
        due = start + number * EVERY_S
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        late = max(late, time.perf_counter() - due)
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return {"records": sorted(records), "late_s": late}


# --- what attackers share -----------------------------------------------------------------------


@asynccontextmanager
async def connection(port: int) -> Any:
    """A connection that is torn down at once at the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    made = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # what it holds is not taken
    writer.transport.set_write_buffer_limits(high=0)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def poured(port: int, parts: Iterator[bytes], told: Told, name: str = "bytes") -> None:
    """Send parts until the server ends the connection or stops reading, and say how much it took.

    told: `most NAME` is the most that it took of one connection; `kept NAME` counts those that it
    neither closed nor read.
    """
    taken = 0
    try:
        async with connection(port) as (reader, writer):
            for part in parts:
                writer.write(part)
                async with asyncio.timeout(STUCK_S):
                    await writer.drain()
                taken += len(part)
                told[f"most {name}"] = max(told[f"most {name}"], taken)
                if reader.at_eof():
                    break
            else:
                told[f"whole {name}"] += 1
                async with asyncio.timeout(STUCK_S):
                    await reader.read(65_536)
    except TimeoutError:
        told[f"kept {name}"] += 1
    except FAULTS:
        told[f"closed {name}"] += 1


async def left(port: int, whole: bytes, after_s: float, told: Told) -> None:
    """Send a request, and leave after a while without the answer."""
    with suppress(*FAULTS):
        async with connection(port) as (reader, writer):
            writer.write(whole)
            told["sent"] += 1
            async with asyncio.timeout(after_s):
                told[str(await answer(reader))] += 1
                return
    told["left"] += 1


async def together(count: int, one: Callable[[int], Awaitable[None]]) -> None:
    """Do it `count` times at once."""
    await asyncio.gather(*(one(number) for number in range(count)))


def repeated(part: bytes, total: int, start: bytes = b"") -> Iterator[bytes]:
    """`start`, then `part` until there are `total` bytes."""
    yield start
    for _ in range(total // len(part)):
        yield part


# --- heads --------------------------------------------------------------------------------------

BEGUN = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


def large_header() -> Round:
    """One header, one target, one trailer or one chunk's extension of 80 MB, one after another."""
    filling = b"a" * MEGABYTE
    chunked = head("POST /v1/read") + b"1\r\nx\r\n"
    kinds = itertools.cycle(
        [
            ("header", BEGUN + b"X-Large: "),
            ("target", b"GET /"),
            ("header's name", BEGUN + b"X"),
            ("trailer", chunked + b"0\r\nX-Large: "),
            ("extension", chunked[:-6] + b"1;"),
        ]
    )

    async def act(port: int, told: Told) -> None:
        name, start = next(kinds)
        await poured(port, repeated(filling, 80 * MEGABYTE, start), told, name)

    return act


def four_large_heads() -> Round:
    """Four heads of 150 MB at once that have no end."""
    filling = b"a" * MEGABYTE

    async def one(port: int, told: Told) -> None:
        start = BEGUN + b"X-Large: "
        await poured(port, repeated(filling, 150 * MEGABYTE, start), told, "head")

    async def act(port: int, told: Told) -> None:
        await together(4, lambda _: one(port, told))

    return act


def many_headers() -> Round:
    """Heads of a million small headers, two at once."""
    filling = b"".join(b"X-%06d: y\r\n" % number for number in range(10_000))

    async def act(port: int, told: Told) -> None:
        start = [BEGUN, head("POST /v1/read") + b"0\r\n"]
        await together(
            2, lambda i: poured(port, repeated(filling, 14 * MEGABYTE, start[i]), told, "headers")
        )

    return act


def slow_heads() -> Round:
    """200 connections whose heads come byte by byte."""

    async def one(port: int, told: Told) -> None:
        with suppress(*FAULTS):
            async with connection(port) as (reader, writer):
                writer.write(BEGUN + b"X-Slow: ")
                for _ in range(600):
                    writer.write(b"a")
                    await writer.drain()
                    told["bytes"] += 1
                    await asyncio.sleep(0.1)
                    if reader.at_eof():
                        break
        told["ended"] += 1

    async def act(port: int, told: Told) -> None:
        await together(200, lambda _: one(port, told))

    return act


# --- pictures -----------------------------------------------------------------------------------


def one_bit_png(side: int) -> bytes:
    """A PNG of side×side pixels of one bit, all white but a stroke."""
    row = b"\0" + b"\xff" * (side // 8)
    stroke = b"\0" + b"\xff" * (side // 16) + b"\0" * 8 + b"\xff" * (side // 8 - side // 16 - 8)
    third = side // 3

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    size = struct.pack(">IIBBBBB", side // 8 * 8, side, 1, 0, 0, 0, 0)
    data = zlib.compress(row * third + stroke * third + row * (side - 2 * third), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def one_bit_bombs() -> Round:
    """1,000 PNGs of 25 megapixels in one request, by two clients that leave after a second."""
    text = base64.b64encode(one_bit_png(5000)).decode()
    body = json.dumps({"pictures": [text] * 1000}).encode()
    kind = "application/json"
    whole = head("POST /v1/read-many?model=rows", kind=kind, length=len(body)) + body

    async def act(port: int, told: Told) -> None:
        await together(2, lambda _: left(port, whole, 1.0, told))

    return act


def large_pictures() -> Round:
    """Pictures of many frames and of as many pixels as are taken, and more: eight at once."""
    from PIL import Image

    def saved(kind: str, side: tuple[int, int], frames: int = 1, **options: Any) -> bytes:
        data, images = io.BytesIO(), [Image.new("L", side, 255 - i % 2) for i in range(frames)]
        images[0].paste(0, (side[0] // 3, side[1] // 4, side[0] // 2, side[1] // 2))
        if frames > 1:
            options |= {"save_all": True, "append_images": images[1:]}
        images[0].save(data, kind, **options)
        return data.getvalue()

    files = [
        saved("GIF", (1000, 1000), 300),
        saved("TIFF", (1000, 1000), 300, compression="tiff_deflate"),
        saved("WEBP", (400, 400), 200, lossless=True, method=0),
        saved("JPEG", (5000, 5000)),
        saved("JPEG", (5000, 5000), progressive=True),
        saved("WEBP", (5000, 5000), lossless=True, method=0),
        saved("WEBP", (5000, 10_000), lossless=True, method=0),
        saved("TIFF", (5000, 5000), compression="tiff_deflate"),
    ]
    requests = [
        head("POST /v1/read?model=rows", kind="image/png", length=len(file)) + file
        for file in files
    ]

    async def act(port: int, told: Told) -> None:
        await together(len(requests), lambda i: left(port, requests[i], ANSWER_S, told))

    return act


# --- bodies -------------------------------------------------------------------------------------

MOST_BODY = 19_900_000  # the server takes 20 MB


def filled(start: bytes, part: bytes, end: bytes) -> bytes:
    return start + part * ((MOST_BODY - len(start) - len(end)) // len(part)) + end


def json_bodies() -> Round:
    """Eight bodies of JSON at once, 20 MB each, of what becomes much larger when it is parsed."""
    bodies = [
        filled(b'{"arrays":[[[0', b",0", b"]]]}"),
        filled(b'{"arrays":[[[0.5', b",0.5", b"]]]}"),
        filled(b'{"arrays":[[]', b",[]", b"]}"),
        filled(b'{"pictures":[{}', b",{}", b"]}"),
        filled(b'{"arrays":[[[0]]', b",[[0]]", b"]}"),
        filled(b'{"pictures":["', b"AAAA", b'"]}'),
        filled(b'{"pictures":["a"', b',"a"', b"]}"),
        filled(b'{"arrays":', b"[" * 1000, b""),
    ]
    kind, line = "application/json", "POST /v1/read-many?model=rows"
    requests = [head(line, kind=kind, length=len(body)) + body for body in bodies]

    async def act(port: int, told: Told) -> None:
        await together(len(requests), lambda i: left(port, requests[i], ANSWER_S, told))

    return act


def forms() -> Round:
    """Forms of 20 MB, four at once, each hard for a parser: near boundaries, parts, headers."""
    kind = "multipart/form-data; boundary=edge"
    part = b'--edge\r\nContent-Disposition: form-data; name="pictures"\r\n\r\n'
    bodies = [
        filled(part, b"\r\n--edg", b"\r\n--edge--\r\n"),
        filled(part, b"\r", b"\r\n--edge--\r\n"),
        filled(b"", part + b"x\r\n", b"--edge--\r\n"),
        filled(b"--edge\r\n", b"A: b\r\n", b"\r\nx\r\n--edge--\r\n"),
    ]
    line = "POST /v1/read-many?model=rows"
    requests = [head(line, kind=kind, length=len(body)) + body for body in bodies]

    async def act(port: int, told: Told) -> None:
        await together(len(requests), lambda i: left(port, requests[i], ANSWER_S, told))

    return act


def endless_bodies() -> Round:
    """Bodies without an end that are refused: no route, no method, too long, not a picture."""
    chunk = b"f4240\r\n" + b"a" * MEGABYTE + b"\r\n"
    heads = {
        "no route": head("POST /nothing"),
        "no method": head("POST /v1/models"),
        "too long": head("POST /v1/read"),
        "no type": head("POST /v1/read", kind="text/plain"),
        "other host": head("POST /v1/read").replace(b"localhost", b"other.example"),
        "no model": head("POST /v1/read?model=none"),
        "announced": head("POST /v1/read", length=10**12),
        "healthz": head("GET /healthz"),
    }

    async def act(port: int, told: Told) -> None:
        names = list(heads)
        await together(
            len(names),
            lambda i: poured(
                port, repeated(chunk, 400 * MEGABYTE, heads[names[i]]), told, names[i]
            ),
        )

    return act


def slow_bodies() -> Round:
    """200 connections whose bodies come byte by byte."""

    async def one(port: int, told: Told) -> None:
        with suppress(*FAULTS):
            async with connection(port) as (reader, writer):
                writer.write(head("POST /v1/read", length=100_000))
                for _ in range(600):
                    writer.write(b"a")
                    await writer.drain()
                    told["bytes"] += 1
                    await asyncio.sleep(0.1)
                    if reader.at_eof():
                        break
        told["ended"] += 1

    async def act(port: int, told: Told) -> None:
        await together(200, lambda _: one(port, told))

    return act


# --- others -------------------------------------------------------------------------------------

SILENT = 2500  # connections; more than a worker may have files by most systems' default


def silent() -> Round:
    """Connections that say nothing."""

    async def one(port: int, told: Told, number: int) -> None:
        with suppress(*FAULTS):
            await asyncio.sleep(number / SILENT)  # all at once would hold up the attacker itself
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(HOST, port)
            told["opened"] += 1
            try:
                async with asyncio.timeout(120):
                    await reader.read(1)
                told["ended"] += 1
            finally:
                writer.transport.abort()

    async def act(port: int, told: Told) -> None:
        await together(SILENT, lambda number: one(port, told, number))

    return act


def explanations(picture: bytes) -> Round:
    """16 explanations that are asked for and not waited for."""
    line = "POST /v1/read?model=rows&explain=true&flip=true"
    whole = head(line, length=len(picture)) + picture

    async def act(port: int, told: Told) -> None:
        await together(16, lambda _: left(port, whole, 0.2, told))

    return act


def requests() -> Round:
    """Small requests one after another, four at once: a line of the log each."""

    async def one(port: int, told: Told) -> None:
        with suppress(*FAULTS):
            async with connection(port) as (reader, writer):
                for _ in range(100):
                    writer.write(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    async with asyncio.timeout(ANSWER_S):
                        told[str(await answer(reader))] += 1

    async def act(port: int, told: Told) -> None:
        await together(4, lambda _: one(port, told))

    return act


ATTACKS: dict[str, Callable[..., Round]] = {
    made.__name__: made
    for made in (
        large_header, four_large_heads, many_headers, slow_heads, one_bit_bombs, large_pictures,
        json_bodies, forms, endless_bodies, slow_bodies, silent, explanations, requests,
    )
}  # fmt: skip


async def attack(act: Round, port: int, seconds: float, out: Path) -> None:
    """Rounds until the time is over; what they did and saw is written as it comes."""
    told: Told = Counter()

    async def rounds() -> None:
        while True:
            told["rounds"] += 1
            try:
                await act(port, told)
            except FAULTS:
                told["refused"] += 1
            await asyncio.sleep(0.01)

    async def writing() -> None:
        while True:
            await asyncio.sleep(0.1)
            written = out.with_suffix(".part")
            written.write_text(json.dumps(told))
            written.replace(out)

    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(rounds(), writing())


def main() -> None:
    """The honest client, or an attacker once its payload is made: it then says so."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["honest", *ATTACKS])
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("picture", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--key", default="")
    parser.add_argument("--patience", type=float, default=ANSWER_S)
    given = parser.parse_args()
    picture = given.picture.read_bytes()
    if given.part == "honest":
        met = honest(given.port, picture, given.seconds, given.key, given.patience)
        seen = asyncio.run(met)
        given.out.write_text(json.dumps(seen))
        return
    os.nice(10)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    made = ATTACKS[given.part]
    act = made(picture) if given.part == "explanations" else made()
    print("ready", flush=True)
    asyncio.run(attack(act, given.port, given.seconds, given.out))


if __name__ == "__main__":
    sys.exit(main())
