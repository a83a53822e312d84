"""Serving: readings a second beside a handler that reads nothing, and under what goes wrong.

What it measures, on the loopback of one machine, with pictures of MNIST's test set as PNG:

- `throughput`: requests a second of one 28×28 PNG each, 200 connections: of `rowwise serve` with
  `rows`; of FastAPI handlers (in_serving.py) that take the same body and answer a constant, run
  the same network by ONNX Runtime, and by Keras.
- `half`: latency at half of our rate, from the moment at which each request was due, so that a
  stall counts for all that it delays.
- `memory`: resident memory of all our processes over a minute of full load.
- `arrays`: digits a second as raw arrays, 1,000 a request, beside those of the engine alone.
- `hostile`: the good requests' rate and errors while a tenth of all requests, sent by another
  client, are malformed, slow or cut off, beside their rate while those are good too.
- `killed`: errors while a worker is killed under load, and the seconds until another one serves.

How. Each server has two processes on the same two cores as the client. The client is wrk, one
thread; `half` and the bad requests need a pace, and come from a client in Python on the same cores.
Servers take turns, round by round; ratios are of one round. Keras runs in --peers-python. Our
access log is written, to a file that is thrown away; the others' is off.

    python benchmarks/serving.py --peers-python OTHER/bin/python
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from measuring import HERE, parse, parser, percentile, save, say, setting, spread
from paced import BAD, GOOD, steady, strangers

from rowwise._version import __version__

MODEL = "rows"
CONNECTIONS = 200
PICTURES = 500  # other ones, in turn
DIGITS = 1000  # a request of raw arrays
LOAD_S, QUICK_S = 10, 2
MEMORY_S, QUICK_MEMORY_S = 60, 4
READY_S = 120
ORDER = ("constant", "rowwise", "onnxruntime", "keras")

ONE = """
local bodies, i = {{}}, 0
for size in string.gmatch("{sizes}", "%d+") do bodies[#bodies + 1] = tonumber(size) end
local file = io.open("{file}", "rb")
for at, size in ipairs(bodies) do bodies[at] = file:read(size) end
file:close()
request = function()
  i = i % #bodies + 1
  return wrk.format("POST", nil, {{["Content-Type"] = "{kind}"}}, bodies[i])
end
"""


class Server:
    """A server of one kind in a process of its own, with its children."""

    def __init__(self, kind: str, model: Path | None, options: argparse.Namespace) -> None:
        self.kind, self.port = kind, free_port()
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "2"]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        if kind == "rowwise":
            command = [sys.executable, "-m", "rowwise", "serve", "--model", MODEL, *place]
        else:
            python = options.peers_python if kind == "keras" else sys.executable
            command = [str(python), "-m", "uvicorn", "--factory", "in_serving:application"]
            command += ["--no-access-log", "--log-level", "error", *place]
            environment |= {
                "SERVING_KIND": kind,
                "SERVING_MODEL": str(model or ""),
                "PYTHONPATH": str(HERE),
                "OMP_NUM_THREADS": "1",
                "TF_NUM_INTRAOP_THREADS": "1",
                "TF_NUM_INTEROP_THREADS": "1",
            }
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(command, env=environment, stderr=self.log)

    def wait(self, body: bytes) -> int:
        """Its digit for a picture, as soon as it answers.

        Raises SystemExit where it ends before, or does not answer in time.
        """
        until = time.monotonic() + READY_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                return self.read(body)
            except OSError:
                time.sleep(0.2)
        self.log.seek(0)
        raise SystemExit(f"{self.kind} does not serve: {self.log.read()[-500:].decode()}")

    def read(self, body: bytes) -> int:
        """Its digit for a picture."""
        import json

        place = f"http://127.0.0.1:{self.port}/v1/read"
        asked = urllib.request.Request(place, body, {"Content-Type": "image/png"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(json.load(answer)["digit"])

    def children(self) -> list[int]:
        """The processes that it has started."""
        listing = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in listing.read_text().split()]

    def memory_mb(self) -> float:
        """Resident memory of it and its children, MB."""
        pages = 0
        for pid in (self.process.pid, *self.children()):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)

    def stop(self) -> int:
        """End it; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        finally:
            self.process.kill()
            self.log.close()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def wrk(
    server: Server, script: Path, *, seconds: float, connections: int, path: str = "/v1/read"
) -> dict[str, Any]:
    """What wrk says of so many seconds."""
    place = f"http://127.0.0.1:{server.port}{path}"
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "20s", "--latency",
         "-s", str(script), place],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return said(done.stdout)


def said(text: str) -> dict[str, Any]:
    """wrk's words as numbers: requests a second, errors, ms of the middle and the 99th of 100."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
    )
    assert rate
    return {
        "rate": float(rate[1]),
        "refused": int(refused[1]) if refused else 0,
        "broken": sum(map(int, broken.groups())) if broken else 0,
        **{f"p{share}_ms": _milliseconds(text, share) for share in (50, 99)},
    }


def _milliseconds(text: str, share: int) -> float | None:
    found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    times = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
    return round(float(found[1]) * times[found[2]], 3) if found else None


def script(folder: Path, name: str, bodies: list[bytes], kind: str) -> Path:
    """A script for wrk that posts these bodies in turn."""
    file, written = folder / f"{name}.bin", folder / f"{name}.lua"
    file.write_bytes(b"".join(bodies))
    sizes = " ".join(str(len(body)) for body in bodies)
    written.write_text(ONE.format(sizes=sizes, file=file, kind=kind))
    return written


def png(digit: Any) -> bytes:
    """A digit's picture as PNG."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(digit).save(content, "PNG")
    return content.getvalue()


def exports(folder: Path) -> dict[str, Path]:
    """The network of `rows` as ONNX Runtime and Keras take it."""
    from rowwise import onnx_model
    from rowwise.model import Model

    found = Model.load(MODEL)
    built = onnx_model.build(found.network, found.weights, found.classes)
    paths = {"onnxruntime": folder / "rows.onnx", "keras": folder / "rows.npz"}
    paths["onnxruntime"].write_bytes(built.SerializeToString())
    np.savez(paths["keras"], **found.weights)
    return paths


# --- the parts ----------------------------------------------------------------------------------


def throughput(
    servers: dict[str, Server], one: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Rates of all, round by round."""
    told: dict[str, list[dict[str, Any]]] = {kind: [] for kind in servers}
    for server in servers.values():
        wrk(server, one, seconds=1, connections=CONNECTIONS)  # warm-up
    for turn in range(options.rounds):
        for kind, server in servers.items():
            found = wrk(server, one, seconds=options.load_s, connections=CONNECTIONS)
            told[kind].append(found)
            say(f"round {turn + 1}, {kind}: {found['rate']:.0f} a second")
    return {
        kind: {
            "rate": spread([one["rate"] for one in found]),
            "p99_ms": spread([one["p99_ms"] for one in found if one["p99_ms"] is not None]),
            "errors": sum(one["refused"] + one["broken"] for one in found),
        }
        for kind, found in told.items()
    }


def half(
    server: Server, bodies: list[bytes], rate: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Latency at half of a rate."""
    wanted = rate / 2
    taken, failed = asyncio.run(
        steady(server.port, bodies, rate=wanted, seconds=options.load_s, connections=50)
    )
    shares = {f"p{share}_ms": round(1e3 * percentile(taken, share / 100), 2) for share in (50, 99)}
    return {"rate": round(wanted), "requests": len(taken), "errors": failed, **shares}


def memory(server: Server, one: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory before, in and after a time of full load."""
    seconds, before = options.memory_s, server.memory_mb()
    values = []
    for _ in range(6):
        wrk(server, one, seconds=max(1.0, seconds / 6), connections=CONNECTIONS)
        values.append(server.memory_mb())
    return {"seconds": seconds, "before_mb": before, "after_each_sixth_mb": values}


def arrays(
    server: Server, digits: Any, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Digits a second over HTTP and by the engine alone, in turn."""
    from rowwise.recognise import Recogniser

    many = script(folder, "many", [digits[:DIGITS].tobytes()], "application/octet-stream")
    engine = Recogniser.load(MODEL, threads=options.threads)
    served, alone, errors = [], [], 0
    engine.probabilities(digits)
    for _ in range(options.rounds):
        found = wrk(server, many, seconds=options.load_s, connections=6, path="/v1/read-many")
        served.append(DIGITS * found["rate"])
        errors += found["refused"] + found["broken"]
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < options.load_s / 2:
            engine.probabilities(digits)
            count += len(digits)
        alone.append(count / (time.perf_counter() - start))
    say(f"raw arrays: {served[-1]:.0f} digits a second, the engine alone {alone[-1]:.0f}")
    return {
        "digits_a_request": DIGITS,
        "served": spread(served),
        "engine_alone": spread(alone),
        "errors": errors,
    }


def under_attack(
    server: Server, one: Path, bodies: list[bytes], options: argparse.Namespace
) -> dict[str, Any]:
    """The rate of wrk's requests beside bad ones of another client, and beside good ones of it.

    Of both that client sends a ninth as many, each over a new connection.
    """
    rate = wrk(server, one, seconds=options.load_s, connections=CONNECTIONS)["rate"] / 9
    without: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    told: dict[str, int] = {}

    async def both(kinds: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, int]]:
        seconds = options.load_s
        load = asyncio.to_thread(wrk, server, one, seconds=seconds, connections=CONNECTIONS)
        others = strangers(server.port, bodies[0], kinds=kinds, rate=rate, seconds=seconds)
        return await asyncio.gather(load, others)

    for _ in range(options.rounds):
        without.append(asyncio.run(both(GOOD))[0])
        good, bad = asyncio.run(both(BAD))
        beside.append(good)
        for name, count in bad.items():
            told[name] = told.get(name, 0) + count
    say(f"beside bad requests: {beside[-1]['rate']:.0f} of {without[-1]['rate']:.0f} a second")
    return {
        "without": spread([found["rate"] for found in without]),
        "beside": spread([found["rate"] for found in beside]),
        "errors": sum(found["refused"] + found["broken"] for found in beside),
        "p99_ms": spread([found["p99_ms"] for found in beside]),
        "bad": told,
    }


def killed(server: Server, one: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What a worker's death costs those whom it served."""
    before = server.children()

    async def both() -> tuple[dict[str, Any], float]:
        load = asyncio.create_task(
            asyncio.to_thread(wrk, server, one, seconds=2 * options.load_s, connections=CONNECTIONS)
        )
        await asyncio.sleep(options.load_s / 2)
        os.kill(before[0], signal.SIGKILL)
        start = time.perf_counter()
        while not set(server.children()) - set(before):
            await asyncio.sleep(0.02)
        seconds = time.perf_counter() - start
        return await load, seconds

    found, seconds = asyncio.run(both())
    return {
        "requests": round(found["rate"] * 2 * options.load_s),
        "broken": found["broken"],
        "refused": found["refused"],
        "connections": CONNECTIONS,
        "started_again_after_s": round(seconds, 2),
    }


# --- all together -------------------------------------------------------------------------------


def measure(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """All parts, one after the other."""
    from rowwise import data

    found = data.load("mnist", path=options.data, download=False)
    bodies = [png(digit) for digit in found.test_images[:PICTURES]]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as made:
        folder = Path(made)
        one = script(folder, "one", bodies, "image/png")
        models = exports(folder)
        servers = {kind: Server(kind, models.get(kind), options) for kind in options.kinds}
        try:
            answers = {kind: server.wait(bodies[0]) for kind, server in servers.items()}
            results["agreement"] = agreement(servers, bodies)
            say(f"all serve: {answers}")
            results["throughput"] = throughput(servers, one, options)
            ours = servers["rowwise"]
            for kind, server in servers.items():
                if kind != "rowwise":
                    server.stop()
            rate = results["throughput"]["rowwise"]["rate"]["median"]
            results["half"] = half(ours, bodies, rate, options)
            results["arrays"] = arrays(ours, found.test_images[:4000], folder, options)
            results["hostile"] = under_attack(ours, one, bodies, options)
            results["memory"] = memory(ours, one, options)
            results["killed"] = killed(ours, one, options)
            results["exit_code"] = ours.stop()
        finally:
            for server in servers.values():
                if server.process.poll() is None:
                    server.process.kill()


def agreement(servers: dict[str, Server], bodies: list[bytes]) -> dict[str, float]:
    """The share of some pictures in which each reads the digit that we read."""
    digits = {
        kind: [server.read(body) for body in bodies[:50]]
        for kind, server in servers.items()
        if kind != "constant"
    }
    ours = digits["rowwise"]
    return {
        kind: float(np.mean([a == b for a, b in zip(its, ours, strict=True)]))
        for kind, its in digits.items()
    }


def main() -> None:
    """Measure and write the results."""
    made = parser("Serving readings over HTTP.", "serving.json", rounds=3)
    made.add_argument("--load-s", type=float, default=LOAD_S, help=f"a turn (default {LOAD_S})")
    made.add_argument("--kinds", nargs="+", default=list(ORDER), choices=ORDER)
    options = parse(made)
    if shutil.which("wrk") is None:
        raise SystemExit("wrk drives the load and is missing; on Debian: apt install wrk")
    options.load_s = QUICK_S if options.quick else options.load_s
    options.memory_s = QUICK_MEMORY_S if options.quick else MEMORY_S
    results = setting(options) | {"connections": CONNECTIONS, "seconds": options.load_s}
    results["versions"] = {name: version(name) for name in ("fastapi", "uvicorn")}
    results["versions"]["rowwise"] = __version__
    measure(options, results)
    save(options, results)


if __name__ == "__main__":
    main()
