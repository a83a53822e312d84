"""Bodies: within their limits, in time, in memory, and never worth more than a problem."""

from __future__ import annotations

import asyncio
import base64
import builtins
import os
import tempfile
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_models import field, page
from made_server import PNG, RAW, Client, application, png, problem, recognisers

from rowwise.server import bodies

FILE = png(field(3))
READ = "/v1/read"


@pytest.fixture(scope="module")
def readers():
    return recognisers()


@pytest.fixture(scope="module")
def client(readers):
    made = Client(application(models=readers, max_bytes=300_000, max_pixels=300_000))
    yield made
    made.close()


def call(app, chunks, *, headers=(), pause_s=0.0, end="request") -> tuple[int, dict, int]:
    """Send a body chunk by chunk; the status, the headers, and how many chunks were taken."""
    told: list[dict[str, Any]] = []
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause_s)
        if not left:
            if end == "request":
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": READ,
        "raw_path": READ.encode(),
        "root_path": "",
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "headers": [(b"host", b"localhost"), (b"content-type", b"image/png"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    asyncio.run(app(scope, receive, send))
    return told[0]["status"], dict(told[0]["headers"]), len(chunks) - len(left)


# --- limits -------------------------------------------------------------------------------------


def test_content_length_is_enough_to_refuse(client):
    length = [(b"content-length", b"300001")]
    status, headers, _ = call(client.app, [b"x" * 1000] * 3, headers=length)
    assert status == 413
    assert headers[b"connection"] == b"close"
    absurd = [(b"content-length", b"9" * 5000)]
    assert call(client.app, [], headers=absurd)[0] == 413


def test_bytes_are_counted_as_they_come(client):
    # Without a length, as in chunked encoding; what is sent after the answer is thrown away.
    status, headers, _ = call(client.app, [b"x" * 100_000] * 10)
    assert (status, headers[b"connection"]) == (413, b"close")
    assert client.app.service.intake.held == 0
    problem(client.post(READ, b"x" * 300_001), 413, "300,000 bytes")
    problem(client.post(READ, b"x" * 300_000), 422, "expected a picture")


def test_a_body_is_whole_in_time(readers):
    app = application(models=readers, body_timeout_s=0.2)
    status, headers, taken = call(app, [b"x"] * 100, pause_s=0.05)
    assert (status, headers[b"connection"]) == (408, b"close")
    assert taken < 50
    assert app.service.intake.held == 0


def test_a_body_that_is_cut_off_is_a_problem_to_nobody_else(client):
    assert call(client.app, [FILE[:50]], end="disconnect")[0] == 400
    assert client.app.service.intake.held == 0
    assert client.app.service.batcher.waiting == 0


def test_all_bodies_together_are_limited(readers):
    app = application(models=readers, max_bytes=100_000, max_held_bytes=150_000)
    app.service.intake.held = 100_000
    status, headers, _ = call(app, [b"x" * 50_000, b"x" * 10_000])
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert app.service.intake.held == 100_000


def test_pixels_are_counted_before_they_are_decoded(client, monkeypatch):
    bomb = png(np.zeros((3000, 3000), np.uint8))  # a few kB
    assert len(bomb) < 300_000
    from PIL import PngImagePlugin

    def never(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", never)
    problem(client.post(READ, bomb), 422, "at most 0.3 megapixels", "3000×3000")
    text = {"array": np.zeros((549, 548), int).tolist()}
    problem(client.post(READ, json=text), 413)  # as text it is too long before


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b'{"array": [[0' + b",0" * 1_000_001 + b"]]}", "1,000,000 numbers"),
        (b'{"arrays": [[]' + b",[]" * 50_000 + b"]}", "50,000 rows"),
        (b'{"pictures": [{}' + b",{}" * 20 + b"]}", "10 objects"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(20)) + b"}", "10 keys"),
    ],
)
def test_json_is_limited_before_it_is_parsed(readers, monkeypatch, text, what):
    made = Client(application(models=readers))
    monkeypatch.setattr(bodies.orjson, "loads", lambda data: pytest.fail("parsed"))
    json = {"content-type": "application/json"}
    problem(made.post("/v1/read-many", text, headers=json), 413, what)
    made.close()


def test_a_thousand_arrays_of_mnists_size_are_within_the_limits(readers):
    made = Client(application(models=readers))
    arrays = np.zeros((1000, 28, 28), int).tolist()
    told = made.post("/v1/read-many", json={"arrays": arrays})
    assert len(told.json()["readings"]) == 1000
    made.close()


def test_texts_in_an_array_are_refused_before_they_are_made_equally_long(client):
    array = {"array": [["x" * 100_000] + ["y"] * 1000] * 10}
    json = {"content-type": "application/json"}
    text = orjson.dumps(array)[:250_000] + b'"]]}'
    assert client.post(READ, text, headers=json).status_code in (400, 422)
    problem(client.post(READ, json={"array": [["x" * 1000, "y"]]}), 422, "numbers")


def test_what_a_body_becomes_is_held_too(readers):
    app = application(models=readers, max_bytes=1_000_000, max_held_bytes=2_500_000)
    json = [(b"content-type", b"application/json")]
    status, _, _ = call(app, [b'{"picture": "' + b"A" * 400_000], headers=json)
    assert (status, app.service.intake.held) == (503, 0)


def test_pdf_is_no_picture(client):
    problem(client.post(READ, b"%PDF-1.7\n" + b"x" * 100, headers=RAW), 422, "got a PDF")


# --- types --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "img/png"])
def test_what_it_is_has_to_be_said(client, kind):
    problem(client.post(READ, FILE, headers={"content-type": kind}), 415, "image/…")


def test_many_are_not_one_image(client):
    problem(client.post("/v1/read-many", FILE, headers=PNG), 415, "application/json")


def test_an_empty_body_is_no_picture(client):
    problem(client.post(READ, b"", headers=PNG), 422, "got no bytes")


# --- JSON ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status", "part"),
    [
        ("", 400, "JSON"),
        ("{", 400, "JSON"),
        ("nan", 400, "JSON"),
        ("[" * 40_000, 400, "JSON"),
        ('{"picture": ' + "[" * 40_000 + "]" * 40_000 + "}", 400, "JSON"),
        ("[]", 422, "an object with picture or array"),
        ("3", 422, "got a number"),
        ("{}", 422, "no key"),
        ('{"picture": "aGk=", "array": []}', 422, "one key"),
        ('{"pictures": "aGk="}', 422, "one key"),
        ('{"picture": 3}', 422, "base64 in a string"),
        ('{"picture": "a"}', 422, "base64"),
        ('{"picture": "a\\u00e9=="}', 422, "base64"),
        ('{"picture": "AA==AAAA"}', 422, "base64"),
        ('{"picture": ""}', 422, "no bytes"),
        ('{"array": 3}', 422, "rows"),
        ('{"array": []}', 422, "rows"),
        ('{"array": [[]]}', 422, "at least one pixel"),
        ('{"array": [[1, 2], [3]]}', 422, "rows"),
        ('{"array": [["a"]]}', 422, "rows"),
        ('{"array": [[null]]}', 422, "rows"),
        ('{"array": [[[1, 2, 3]]]}', 422, "rows"),
        ('{"array": [[-1]]}', 422, "0..255"),
        ('{"array": [[1e400]]}', 400, "JSON"),
        ('{"array": [[1e300]]}', 422, "0..255"),
        ('{"array": [[99999999999999999999999]]}', 422, ""),
        ('{"array": [[70000]]}', 422, "0..255"),
    ],
)
def test_json_that_is_none(client, text, status, part):
    answer = client.post(READ, text.encode(), headers={"content-type": "application/json"})
    problem(answer, status, part)


@settings(max_examples=150)
@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["picture", "array", "arrays", "pictures", "x"]), inner),
    max_leaves=12,
))  # fmt: skip
def test_any_json_has_an_answer(client, tree):
    import json

    text = json.dumps(tree).encode()
    for url in (READ, "/v1/read-many"):
        answer = client.post(url, text, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400, 413, 422), answer.text


# --- forms --------------------------------------------------------------------------------------


def form(*parts: bytes, boundary: bytes = b"BB", end: bytes = b"--BB--\r\n") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end


def part(content: bytes, name: str = "picture") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"; filename="x.png"\r\n\r\n'
    return head.encode() + content


MULTIPART = {"content-type": "multipart/form-data; boundary=BB"}


def test_a_form_by_hand_is_read(client):
    assert client.post(READ, form(part(FILE)), headers=MULTIPART).status_code == 200
    beside = [part(b"x", f"f{i}") for i in range(8)]
    assert client.post(READ, form(*beside, part(FILE)), headers=MULTIPART).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "closing boundary"),
        (form(part(FILE))[:-20], 400, "closing boundary"),
        (form(part(FILE), boundary=b"CC"), 400, "malformed"),
        (b"--BB\r\nbroken header\r\n\r\nx\r\n--BB--\r\n", 400, "malformed"),
        (form(part(FILE, "other")), 422, "field `picture`"),
        (form(part(FILE), part(FILE)), 413, "at most 1"),
        (form(part(b"")), 422, "no bytes"),
        (form(*[part(b"x", "y")] * 20), 422, "too many others"),
        (form(b"X-Long: " + b"a" * 9000 + b"\r\n" + part(FILE)), 400, "malformed"),
        (form(b"\r\nno name"), 422, "field `picture`"),
    ],
)
def test_forms_that_are_none(client, body, status, words):
    problem(client.post(READ, body, headers=MULTIPART), status, words)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_names_its_boundary(client, kind):
    problem(client.post(READ, form(part(FILE)), headers={"content-type": kind}), 400, "boundary")


@settings(max_examples=100)
@given(st.data())
def test_any_damage_to_a_form_has_an_answer(client, data):
    whole = bytearray(form(part(FILE)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "double"]))
        if what == "flip":
            whole[at] = data.draw(st.integers(0, 255))
        elif what == "cut" and len(whole) > 10:
            del whole[at : at + data.draw(st.integers(1, 9))]
        else:
            whole[at:at] = whole[at : at + 9]
    answer = client.post(READ, bytes(whole), headers=MULTIPART)
    assert answer.status_code in (200, 400, 413, 422), answer.text


# --- the disk -----------------------------------------------------------------------------------


def test_nothing_of_a_request_touches_the_disk(readers, monkeypatch):
    """Pictures of megabytes, in each kind of body, while every way to a file is closed."""
    client = Client(application(models=readers))
    large = png(np.random.default_rng(0).integers(0, 255, (1500, 1500), np.uint8))
    assert len(large) > 2_000_000
    client.post(READ, FILE)  # what is imported at first use is

    def closed(*arguments, **options):
        raise AssertionError(f"a file is opened: {arguments}")

    for place, name in ((builtins, "open"), (os, "open"), (tempfile, "SpooledTemporaryFile")):
        monkeypatch.setattr(place, name, closed)
    text = base64.b64encode(large).decode()
    answers = [
        client.post(READ, large),
        client.post(READ, form(part(large)), headers=MULTIPART),
        client.post(READ, json={"picture": text}),
        client.post("/v1/read-many", form(part(large, "pictures")), headers=MULTIPART),
        client.post(READ, png(page(3), "JPEG"), headers=RAW),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5
    client.close()


@pytest.mark.parametrize("more", [-4, -1, 0, 1, 5])
def test_long_base64_is_decoded_piece_by_piece_to_the_same(more):
    data = np.random.default_rng(0).bytes(2 * bodies.BASE64_CHARS * 3 // 4 + more)
    assert bodies._decoded(base64.b64encode(data).decode()) == data
