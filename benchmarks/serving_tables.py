"""The part of docs/benchmarks.md on serving, from the results of serving.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Results = dict[str, Any]
Table = Callable[[list[str], list[list[str]]], str]

NAMES = {
    "constant": "FastAPI, a constant answer",
    "rowwise": "`rowwise serve`",
    "onnxruntime": "FastAPI, ONNX Runtime",
    "keras": "FastAPI, Keras",
}


def serving(results: Results, table: Table, head: str, shown: Callable[[list[float]], str]) -> str:
    """Rates, latencies, memory, and what is left of them when things go wrong."""
    told = results["throughput"]
    constant = told["constant"]["rate"]["values"]
    rows = []
    for kind, one in told.items():
        rates = one["rate"]["values"]
        share = [100 * a / b for a, b in zip(rates, constant, strict=True)]
        late = shown(one["p99_ms"]["values"]) if one["p99_ms"]["n"] else "–"
        rows.append([NAMES[kind], shown(rates), shown(share), late, str(one["errors"])])
    header = ["server, two processes", "readings a second", "of the constant's, %"]
    header += ["99th percentile, ms", "errors"]
    return "\n\n".join(
        [
            f"{head} {results['connections']} connections, {results['seconds']} s a turn.",
            table(header, rows),
            *_sentences(results, shown),
        ]
    )


def _sentences(results: Results, shown: Callable[[list[float]], str]) -> list[str]:
    half, arrays, memory = results["half"], results["arrays"], results["memory"]
    hostile, killed = results["hostile"], results["killed"]
    pairs = zip(arrays["served"]["values"], arrays["engine_alone"]["values"], strict=True)
    share = [100 * served / alone for served, alone in pairs]
    beside = zip(hostile["beside"]["values"], hostile["without"]["values"], strict=True)
    kept = [100 * good / before for good, before in beside]
    bad = ", ".join(f"{count:,} {name}" for name, count in sorted(hostile["bad"].items()))
    grown = memory["after_each_sixth_mb"]
    return [
        f"At half of that rate ({half['rate']:,} a second, {half['requests']:,} requests): median "
        f"{half['p50_ms']:g} ms, 99th percentile {half['p99_ms']:g} ms, {half['errors']} errors.",
        f"Raw arrays, {arrays['digits_a_request']:,} a request: "
        f"{shown(arrays['served']['values'])} digits a second, {shown(share)} % of what the engine "
        f"alone reads on the same cores, {arrays['errors']} errors.",
        f"Resident memory of all processes: {memory['before_mb']:g} MB before {memory['seconds']} "
        f"s of full load, then {', '.join(f'{value:g}' for value in grown)} MB after each sixth.",
        f"With a tenth of the requests bad (kind and answer: {bad}) the good ones come at "
        f"{shown(kept)} % of their rate while all are good; {hostile['errors']} of them failed.",
        f"A worker killed under load: of {killed['requests']:,} requests on "
        f"{killed['connections']} connections {killed['broken']} were broken off and "
        f"{killed['refused']} refused; another worker was started after "
        f"{killed['started_again_after_s']:g} s.",
    ]
