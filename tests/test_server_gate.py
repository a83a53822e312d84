"""The gate: keys, hosts, origins, headers, the log, the metrics, and faults of ours."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path

import made_server
import pytest
from made_models import field
from made_server import AWAY, KEY, PNG, Client, application, png, problem, recognisers
from prometheus_client.parser import text_string_to_metric_families

from rowwise.errors import ConfigError
from rowwise.server import keys, log
from rowwise.server.configuration import Configuration
from rowwise.server.gate import SECURITY
from rowwise.server.log import logging_to

FILE = png(field(3))
OTHER = "another-key-0123456789"


@pytest.fixture(scope="module")
def readers():
    return recognisers()


@pytest.fixture
def make(readers):
    made: list[Client] = []

    def client(address=made_server.HERE, base="http://localhost", **settings) -> Client:
        made.append(Client(application(models=readers, **settings), address, base))
        return made[-1]

    yield client
    for one in made:
        one.close()


# --- keys ---------------------------------------------------------------------------------------


def test_with_keys_only_the_page_and_health_are_open(make):
    client = make(api_keys=(OTHER, KEY))
    for path in ("/", "/healthz", "/readyz", "/openapi.json"):
        assert client.get(path).status_code == 200
    for path in ("/v1/models", "/v1/models/best", "/v1/server", "/metrics", "/v1/nothing", "/x"):
        answer = client.get(path)
        assert problem(answer, 401)["type"] == "urn:rowwise:problem:no-key"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/v1/read", "/v1/read-many", "/v1/corrections?label=1"):
        problem(client.post(path, FILE), 401)
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {OTHER}"},
                    {"X-API-Key": KEY}):  # fmt: skip
        assert client.get("/v1/server", headers=headers).json()["needs_key"] is True
        assert client.post("/v1/read", FILE, headers=PNG | headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer \u00e9\u00e9\u00e9"},
        {"X-API-Key": ""},
        {"Cookie": f"key={KEY}"},
    ],
)
def test_what_is_no_key(make, headers):
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    problem(make(api_keys=(KEY,)).get("/v1/server", headers=encoded), 401)


def test_every_key_is_compared_whichever_it_is(make, monkeypatch):
    compared = []
    real = keys.hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(1) or real(a, b))
    client = make(api_keys=(KEY, OTHER, "a-third-key-0123456789"))
    for key in (KEY, OTHER, "no key of this server"):
        compared.clear()
        client.get("/v1/server", headers={"X-API-Key": key})
        assert len(compared) == 3


def test_keys_come_from_a_file_too(make, tmp_path):
    (tmp_path / "keys").write_text(f"# of the page\n\n{KEY}\n  {OTHER}  \n")
    client = make(key_file=str(tmp_path / "keys"))
    for key in (KEY, OTHER):
        assert client.get("/v1/server", headers={"X-API-Key": key}).status_code == 200
    problem(client.get("/v1/server", headers={"X-API-Key": "# of the page"}), 401)


@pytest.mark.parametrize("key", ["short", "with spaces in it, long", "\u00e9" * 20, "x" * 600])
def test_a_poor_key_is_refused_and_not_repeated(key):
    with pytest.raises(ConfigError, match="key 2 has not") as raised:
        keys.load(Configuration(api_keys=(KEY, key)))
    assert key not in str(raised.value)


def test_a_key_file_has_keys(tmp_path):
    (tmp_path / "none").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="a key a line, got none"):
        keys.load(Configuration(key_file=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="key file cannot be used"):
        keys.load(Configuration(key_file=str(tmp_path / "missing")))


def test_others_are_served_with_a_key_or_when_that_is_asked_for():
    none, some = keys.Keys(), keys.Keys([KEY])
    keys.check_reach(Configuration(), ["127.0.0.1", "::1", "127.8.9.1"], none)
    keys.check_reach(Configuration(host="0.0.0.0"), ["0.0.0.0"], some)
    keys.check_reach(Configuration(insecure_no_auth=True), ["0.0.0.0"], none)
    for address in ("0.0.0.0", "::", "192.168.0.5", "fe80::1%eth0"):
        with pytest.raises(ConfigError, match="--insecure-no-auth"):
            keys.check_reach(Configuration(), ["127.0.0.1", address], none)


# --- hosts and origins --------------------------------------------------------------------------


def test_a_local_server_has_local_names(make):
    client = make(hosts=("digits.example",))
    for name in ("localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:8000", "[::1]:8000",
                 "digits.example", "10.0.0.11:8000", "10.0.0.11", "[fe80::2]"):  # fmt: skip
        assert client.get("/healthz", headers={"Host": name}).status_code == 200
    for name in ("evil.example", "127.0.0.1.evil.example", "localhost.evil:8000", "",
                 "10.0.0", "[::2].evil"):  # fmt: skip
        problem(client.get("/", headers={"Host": name}), 421, "--host-name")


def test_a_wider_server_has_any_name_or_those_that_were_given(make):
    anyone = make(host="0.0.0.0", address=AWAY)
    assert anyone.get("/healthz", headers={"Host": "any.example"}).status_code == 200
    named = make(host="0.0.0.0", hosts=("digits.example",), address=AWAY)
    assert named.get("/healthz", headers={"Host": "digits.example:80"}).status_code == 200
    assert named.get("/readyz", headers={"Host": "10.0.0.11:8000"}).status_code == 200
    problem(named.get("/healthz", headers={"Host": "any.example"}), 421)


def test_no_other_site_may_call_unless_it_is_named(make):
    asked = {"Origin": "http://friend.example", "Access-Control-Request-Method": "POST"}
    closed = make()
    answer = closed.send("OPTIONS", "/v1/read", headers=asked)
    assert answer.status_code == 405
    assert not [h for h in answer.headers if h.startswith("access-control")]
    friendly = make(origins=("http://friend.example",), api_keys=(KEY,))
    answer = friendly.send("OPTIONS", "/v1/read", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://friend.example"
    read = friendly.post("/v1/read", FILE, headers=PNG | asked | {"X-API-Key": KEY})
    assert read.headers["access-control-allow-origin"] == "http://friend.example"
    refused = friendly.post("/v1/read", FILE, headers=PNG | asked)
    problem(refused, 401)
    assert refused.headers["access-control-allow-origin"] == "http://friend.example"
    foreign = friendly.send("OPTIONS", "/v1/read", headers=asked | {"Origin": "http://x.example"})
    assert "access-control-allow-origin" not in foreign.headers


# --- headers ------------------------------------------------------------------------------------


def test_every_answer_carries_what_protects_it(make):
    client = make()
    answers = [
        client.get("/v1/models"),
        client.get("/nothing"),
        client.post("/v1/read", FILE),
        client.post("/v1/read", b"x"),
        client.get("/metrics"),
        client.get("/openapi.json"),
        client.get("/", headers={"Host": "evil.example"}),
    ]
    for answer in answers:
        assert {name: answer.headers[name] for name in SECURITY} == SECURITY
        assert "server" not in answer.headers
        assert answer.headers["x-request-id"]
        assert len(answer.headers.get_list("content-type")) == 1


def test_the_page_runs_what_is_in_it_and_nothing_else(make):
    answer = make().get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    for part in ("default-src 'none'", "style-src 'sha256-", "connect-src 'self'",
                 "frame-ancestors 'none'", "base-uri 'none'", "script-src '"):  # fmt: skip
        assert part in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-cache"


def test_the_policy_is_that_of_the_text():
    import base64
    import hashlib

    from rowwise.server import page

    text = "<style>a{}</style>\n<SCRIPT type=module>\r\nlet x</SCRIPT><script>y</script>"
    policy = page.policy(text)
    for inside in ("a{}", "\nlet x", "y"):
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert page.policy("").count("'none'") >= 5


def test_a_request_id_is_taken_or_given(make):
    client = make()
    sane = client.get("/healthz", headers={"X-Request-ID": "abc-1.2_3"})
    assert sane.headers["x-request-id"] == "abc-1.2_3"
    given = {client.get("/healthz").headers["x-request-id"] for _ in range(5)}
    assert len(given) == 5
    for odd in ("a b", "x" * 65, 'a"b', ""):
        answer = client.get("/healthz", headers={"X-Request-ID": odd})
        assert answer.headers["x-request-id"] not in (odd, "")


# --- the log ------------------------------------------------------------------------------------


@contextmanager
def logged(path: Path):
    """What is logged meanwhile goes to a file."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    with logging_to(descriptor):
        yield
    os.close(descriptor)


def test_a_line_a_request_and_nothing_private(make, tmp_path):
    path = tmp_path / "log"
    client = make(api_keys=(KEY,))
    key = {"X-API-Key": KEY}
    with logged(path):
        client.post("/v1/read?model=rows", FILE, headers=PNG | key | {"X-Request-ID": "one"})
        client.get(f"/secret/path?token=hidden{KEY}", headers=key)
        client.get("/v1/models/best", headers=key)
        client.get("/v1/server")
    text = path.read_text()
    records = [json.loads(line) for line in text.splitlines()]
    first = records[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert 0 < first.pop("ms") < 60_000
    assert first == {
        "method": "POST", "route": "/v1/read", "status": 200, "bytes": len(FILE), "pictures": 1,
        "client": "127.0.0.1", "id": "one",
    }  # fmt: skip
    assert [r["route"] for r in records[1:]] == ["none", "/v1/models/{name}", "none"]
    assert [r["status"] for r in records[1:]] == [404, 200, 401]
    for secret in (KEY, "hidden", "secret", "model=", "token"):
        assert secret not in text


def test_a_log_whose_reader_has_gone_stops_nothing(make):
    read, write = os.pipe()
    os.close(read)
    with logging_to(write):
        assert make().get("/healthz").status_code == 200
    os.close(write)


def test_a_log_that_nobody_reads_stops_nothing_and_tells_what_was_dropped(make, monkeypatch):
    monkeypatch.setattr(log, "MOST_LINES", 5)
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):  # once the pipe is full
        while os.write(write, b" " * 4096):
            pass
    os.set_blocking(write, True)
    client, text = make(), b""
    with logging_to(write):
        assert [client.get("/healthz").status_code for _ in range(40)] == [200] * 40
        while b"dropped" not in text:
            text = os.read(read, 65_536)
    dropped = next(json.loads(line) for line in text.splitlines() if b"dropped" in line)
    assert dropped["level"] == "warning"
    assert 20 <= int(dropped["message"].split()[0]) <= 40
    for one in (read, write):
        os.close(one)


# --- metrics ------------------------------------------------------------------------------------


def numbers(client: Client) -> dict[tuple, float]:
    text = client.get("/metrics").text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_counted(make):
    client = make(queue=1, max_pictures=1)
    for _ in range(3):
        client.post("/v1/read?model=rows", FILE)
    client.post("/v1/read?model=rows", b"x" * 9)
    client.post("/v1/read", png(field(3) * 0))
    client.app.service.batcher.waiting = 1
    busy = client.post("/v1/read", FILE)
    assert problem(busy, 503)["type"] == "urn:rowwise:problem:busy"
    assert busy.headers["retry-after"] == "1"
    client.app.service.batcher.waiting = 0
    client.get("/no/such/path/a")
    client.get("/no/such/path/b")
    told = numbers(client)
    route = ("route", "/v1/read")
    requests = "rowwise_requests_total"
    assert told[requests, ("method", "POST"), route, ("status", "200")] == 4
    assert told[requests, ("method", "POST"), route, ("status", "422")] == 1
    assert told[requests, ("method", "POST"), route, ("status", "503")] == 1
    assert told[requests, ("method", "none"), ("route", "none"), ("status", "404")] == 2
    assert told["rowwise_request_seconds_count", route] == 6
    assert told["rowwise_batch_pictures_sum", ("model", "rows")] == 4
    assert told["rowwise_readings_total", ("model", "rows"), ("outcome", "unsure")] == 3
    assert told["rowwise_readings_total", ("model", "rows"), ("outcome", "failed")] == 1
    assert told["rowwise_readings_total", ("model", "best"), ("outcome", "no ink")] == 1
    assert told["rowwise_rejections_total", ("room", "readings")] == 1
    assert told["rowwise_queue_pictures",] == 0
    assert not [key for key in told if "such" in str(key)]


# --- faults of ours -----------------------------------------------------------------------------


def test_a_fault_of_ours_is_a_problem_that_tells_nothing(make, monkeypatch, tmp_path):
    client = make()

    def broken(*arguments, **options):
        raise ZeroDivisionError("what was sent")

    monkeypatch.setattr(client.app.service.shelf, "cards", broken)
    monkeypatch.setattr("rowwise.recognise.Recogniser.read_fields", broken)
    with logged(tmp_path / "log"):
        answers = [client.get("/v1/models"), client.post("/v1/read", FILE)]
    for answer in answers:
        told = problem(answer, 500, answer.headers["x-request-id"])
        assert "ZeroDivision" not in told["detail"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    text = (tmp_path / "log").read_text()
    faults = [r for r in map(json.loads, text.splitlines()) if "level" in r]
    assert [fault["message"] for fault in faults] == ["ZeroDivisionError"] * 2
    assert "test_server_gate.py" in faults[0]["where"][-1]
    assert "what was sent" not in text
    monkeypatch.undo()
    assert client.post("/v1/read", FILE).status_code == 200
