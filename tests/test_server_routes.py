"""The API as its users call it: every body, every answer, what is refused and how."""

from __future__ import annotations

import base64
import errno
import os

import made_models
import numpy as np
import pytest
from made_models import field, page
from made_server import AWAY, PNG, RAW, Client, application, png, problem, recognisers
from PIL import Image

from rowwise import data
from rowwise._version import __version__

FIELD, PAGE = field(3), page(5)
READ = "/v1/read"
MANY = "/v1/read-many"


@pytest.fixture(scope="module")
def readers():
    return recognisers(promises=(made_models.PROMISE,))


@pytest.fixture
def client(readers):
    made = Client(application(models=readers))
    yield made
    made.close()


def same(told: dict, reading) -> None:
    """A reading told is the one that the library makes, to the last bit of float32."""
    assert told["digit"] == reading.digit
    assert told["label"] == reading.label
    assert (told["accepted"], told["reason"]) == (reading.accepted, reading.reason)
    got = np.array(told["probabilities"], np.float32)
    np.testing.assert_allclose(got, reading.probabilities, atol=1e-6)
    assert told["confidence"] == pytest.approx(reading.confidence, abs=1e-6)


# --- one picture ------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", [FIELD, PAGE], ids=["field", "page"])
def test_every_body_of_one_picture_is_read_as_the_library_reads_it(client, readers, picture):
    file, text = png(picture), base64.b64encode(png(picture)).decode()
    wanted = readers["best"].read(file)
    answers = [
        client.post(READ, file),
        client.post(READ, file, headers=RAW),
        client.post(READ, file, headers={"content-type": "IMAGE/X-Whatever; a=b"}),
        client.post(READ, files={"picture": ("../../x.png", file)}),
        client.post(READ, json={"picture": text}),
        client.post(READ, json={"array": picture.tolist()}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        told = answer.json()
        same(told, wanted)
        assert told["model"] == "best"
        assert told["classes"] == list("0123456789")
        assert set(told) == {
            "model", "digit", "label", "confidence", "accepted", "reason", "probabilities",
            "classes",
        }  # fmt: skip


def test_the_model_is_chosen_by_name(client, readers):
    told = client.post(f"{READ}?model=rows", png(FIELD)).json()
    assert told["model"] == "rows"
    same(told, readers["rows"].read(FIELD))
    problem(client.post(f"{READ}?model=row", png(FIELD)), 404, "did you mean 'rows'")
    path = client.post(f"{READ}?model=/etc/passwd", png(FIELD))
    assert problem(path, 404)["type"] == "urn:rowwise:problem:no-such-model"


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {}), ("TIFF", {}), ("GIF", {})]
)
def test_formats(client, readers, kind, options):
    file = png(PAGE, kind, **options)
    same(client.post(READ, file, headers=RAW).json(), readers["best"].read(file))


def test_a_picture_without_ink_is_an_answer(client):
    told = client.post(READ, png(np.full((60, 60), 255, np.uint8))).json()
    assert (told["digit"], told["label"], told["confidence"]) == (None, "", 0.0)
    assert not told["accepted"]
    assert told["reason"].startswith("no ink")
    assert told["probabilities"] == [0.0] * 10


def test_a_query_says_only_what_is_known(client):
    file = png(FIELD)
    problem(client.post(f"{READ}?modle=rows", file), 422, "did you mean 'model'")
    problem(client.post(f"{READ}?explain=perhaps", file), 422, "'explain'", "'perhaps'")
    problem(client.post(f"{READ}?{'a' * 3000}=1", file), 422, "2,000 bytes")
    problem(client.post(f"{READ}?{'a=1&' * 40}", file), 422, "20 parameters")
    problem(client.post(f"{MANY}?explain=true", file, headers=RAW), 422, "unknown parameter")


# --- explanations -----------------------------------------------------------------------------


def test_an_explanation_holds_all_of_the_librarys(client, readers):
    told = client.post(f"{READ}?explain=true", png(PAGE)).json()["explanation"]
    why = readers["best"].explain(PAGE)
    assert [step["name"] for step in told["steps"]] == [step.name for step in why.steps]
    assert (told["rows"], told["columns"]) == (28, 28)
    np.testing.assert_allclose(told["ink"], why.ink, atol=1e-5)
    np.testing.assert_allclose(told["beliefs"], why.beliefs, atol=1e-5)
    assert told["decided_at"] == why.decided_at
    assert told["belief_model"] == why.belief_model
    np.testing.assert_array_equal(decoded(told["seen"]), why.reading.picture)
    longest = [max(decoded(step["picture"]).shape) for step in told["steps"]]
    assert max(longest) <= 320
    assert told["neighbours"] == []
    assert told["why_no_neighbours"]


def test_a_picture_of_colours_keeps_them(client):
    inked = np.full((400, 400, 3), 255, np.uint8)
    inked[50:350, 180:220] = (200, 10, 30)
    steps = client.post(f"{READ}?explain=true", png(inked)).json()["explanation"]["steps"]
    coloured = [decoded(s["picture"]) for s in steps if decoded(s["picture"]).ndim == 3]
    for picture in coloured:
        assert max(picture.shape) <= 320


def test_a_flip_is_read_again(client, readers):
    told = client.post(f"{READ}?flip=true", png(FIELD)).json()
    assert "explanation" not in told
    found = readers["best"].flip(FIELD)
    if found is None:
        assert told["flip"] is None
        assert told["why_no_flip"]
        return
    changed = decoded(told["flip"]["picture"])
    np.testing.assert_array_equal(changed, found.picture)
    assert told["flip"]["reading"]["digit"] != told["digit"]
    same(told["flip"]["reading"], readers["best"].read(changed))


def test_without_ink_nothing_is_explained_or_flipped(client):
    told = client.post(f"{READ}?explain=1&flip=1", png(np.zeros((40, 40), np.uint8))).json()
    assert told["explanation"]["beliefs"] == []
    assert told["explanation"]["seen"] == ""
    assert told["flip"] is None
    assert told["why_no_flip"].startswith("no ink")


def decoded(text: str) -> np.ndarray:
    import io

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


# --- many pictures ----------------------------------------------------------------------------


def test_every_body_of_many_pictures(client, readers):
    fields = np.stack([field(d) for d in range(5)])
    wanted = readers["rows"].read_many(fields)
    files = [png(one) for one in fields]
    texts = [base64.b64encode(file).decode() for file in files]
    answers = [
        client.post(f"{MANY}?model=rows", fields.tobytes(), headers=RAW),
        client.post(f"{MANY}?model=rows", files=[("pictures", file) for file in files]),
        client.post(f"{MANY}?model=rows", json={"pictures": texts}),
        client.post(f"{MANY}?model=rows", json={"arrays": fields.tolist()}),
    ]
    for answer in answers:
        told = answer.json()
        assert told["model"] == "rows"
        assert len(told["readings"]) == 5
        for one, reading in zip(told["readings"], wanted, strict=True):
            assert "model" not in one
            same(one, reading)


def test_one_that_cannot_be_read_has_its_problem_in_its_place(client):
    good = base64.b64encode(png(FIELD)).decode()
    pictures = [good, "%%%", base64.b64encode(b"no picture").decode(), 7, good]
    told = client.post(MANY, json={"pictures": pictures}).json()["readings"]
    assert [list(one) == ["error"] for one in told] == [False, True, True, True, False]
    assert "base64" in told[1]["error"]["detail"]
    assert told[2]["error"]["status"] == 422
    arrays = client.post(MANY, json={"arrays": [FIELD.tolist(), [[1, 2], [3]]]}).json()["readings"]
    assert "error" in arrays[1]
    assert "digit" in arrays[0]


@pytest.mark.parametrize("white", [1, 255, 65_535, 1.0, 255.0])
def test_the_numbers_of_arrays_mean_what_they_mean_together(client, white):
    ink = (FIELD > 127).astype(type(white))
    black = 0 * ink
    black[4:24, 13:15] = white > 1  # of 255: nothing
    arrays = {"arrays": [(white * ink).tolist(), black.tolist()]}
    inked, empty = client.post(MANY, json=arrays).json()["readings"]
    [wanted] = client.post(MANY, json={"arrays": [(255 * ink).tolist()]}).json()["readings"]
    assert inked == wanted
    assert inked["digit"] is not None
    assert empty["digit"] is None


def test_raw_bytes_of_0_and_1_are_two_levels(client):
    ink = np.stack([FIELD > 127, np.zeros_like(FIELD)]).astype(np.uint8)
    told = [client.post(MANY, array.tobytes(), headers=RAW).json() for array in (ink, 255 * ink)]
    assert told[0] == told[1]
    assert [one["digit"] is None for one in told[0]["readings"]] == [False, True]


def test_more_than_a_batch_keeps_its_order(client, readers):
    fields = np.stack([field(i % 10, width=0.08 + 0.001 * i) for i in range(30)] * 5)
    told = client.post(MANY, fields.tobytes(), headers=RAW).json()["readings"]
    wanted = readers["best"].read_many(fields)
    assert [one["digit"] for one in told] == [one.digit for one in wanted]


def test_the_number_of_pictures_is_limited(readers):
    client = Client(application(models=readers, max_pictures=3))
    fields = np.stack([FIELD] * 4)
    text = base64.b64encode(png(FIELD)).decode()
    assert client.post(MANY, fields[:3].tobytes(), headers=RAW).status_code == 200
    problem(client.post(MANY, fields.tobytes(), headers=RAW), 413, "at most 3 pictures, got 4")
    problem(client.post(MANY, json={"pictures": [text] * 4}), 413, "at most 3")
    problem(client.post(MANY, files=[("pictures", png(FIELD))] * 4), 413, "at most 3")
    for empty in ({"pictures": []}, {"arrays": []}):
        problem(client.post(MANY, json=empty), 422, "at least one")
    problem(client.post(MANY, fields.tobytes()[:-1], headers=RAW), 422, "28×28 = 784 bytes")
    problem(client.post(MANY, b"", headers=RAW), 422, "784 bytes")
    client.close()


# --- what there is ----------------------------------------------------------------------------


def test_models_and_cards(client, readers):
    told = client.get("/v1/models").json()
    assert told["default"] == "best"
    assert [card["name"] for card in told["models"]] == ["best", "rows"]
    assert told["models"][1] == client.get("/v1/models/rows").json()
    assert told["models"][1] == readers["rows"].model.plain()
    problem(client.get("/v1/models/bets"), 404, "did you mean 'best'")


def test_the_server_says_what_it_does(client, monkeypatch):
    told = client.get("/v1/server").json()
    assert told == {
        "version": __version__,
        "models": ["best", "rows"],
        "default": "best",
        "keeps_corrections": False,
        "limits": {
            "bytes": 20_000_000,
            "pixels": 25_000_000,
            "request_pixels": 100_000_000,
            "pictures": 1000,
        },
        "needs_key": False,
        "training_digits": False,
    }


def test_health_and_readiness(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.app.service.draining = True
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    problem(answer, 503)
    assert answer.headers["retry-after"]


def test_what_leads_nowhere_is_a_problem(client):
    problem(client.get("/nothing"), 404, "/openapi.json")
    problem(client.get(READ), 405, "'GET'")
    problem(client.send("DELETE", "/v1/models"), 405)
    problem(client.send("OPTIONS", READ), 405)
    problem(client.get("/docs"), 404)


@pytest.mark.parametrize(
    "path",
    ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/v1/models/best",
     "/v1/server"],
)  # fmt: skip
def test_head_answers_as_get_does(client, path):
    answer, got = client.send("HEAD", path), client.get(path)
    assert answer.status_code == got.status_code == 200
    assert answer.headers["content-type"] == got.headers["content-type"]
    assert int(answer.headers["content-length"]) > 0


def test_head_has_the_problems_of_get(client):
    assert client.send("HEAD", "/nothing").status_code == 404
    assert client.send("HEAD", "/v1/models/absent").status_code == 404
    assert client.send("HEAD", READ).status_code == 405


# --- corrections ------------------------------------------------------------------------------


def test_a_correction_is_kept_as_what_the_network_sees(readers, tmp_path):
    client = Client(application(models=readers, keep=str(tmp_path / "kept")))
    assert client.get("/v1/server").json()["keeps_corrections"]
    answers = [
        client.post("/v1/corrections?label=5", png(PAGE)),
        client.post("/v1/corrections?label=5", json={"array": FIELD.tolist()}),
        client.post("/v1/corrections?label=7", files={"picture": png(page(7))}),
    ]
    assert [a.status_code for a in answers] == [201] * 3
    assert [a.json() for a in answers] == [
        {"kept": 1, "of": 1}, {"kept": 2, "of": 2}, {"kept": 1, "of": 3},
    ]  # fmt: skip
    files = [p for p in (tmp_path / "kept").rglob("*") if p.suffix == ".png"]
    seen = {np.asarray(Image.open(path)).tobytes() for path in files}
    wanted = [readers["best"].read(one).picture for one in (PAGE, FIELD, page(7))]
    assert seen == {one.tobytes() for one in wanted}
    learnt = data.load_labelled(tmp_path / "kept", classes=tuple("0123456789"), shape=(28, 28))
    assert sorted(learnt.labels.tolist()) == [5, 5, 7]
    problem(client.post("/v1/corrections?label=x", png(PAGE)), 422, "a label is one of 0, 1")
    problem(client.post("/v1/corrections", png(PAGE)), 422, "'label'", "must be given")
    blank = png(np.zeros((50, 50), np.uint8))
    problem(client.post("/v1/corrections?label=1", blank), 422, "shows ink")
    problem(client.post("/v1/corrections?label=1", b"xyz"), 422, "expected a picture")
    client.close()


def test_corrections_are_kept_for_this_machine_alone_and_when_asked(readers, tmp_path):
    kept = {"keep": str(tmp_path / "kept")}
    away = Client(application(models=readers, host="0.0.0.0", **kept), AWAY)
    problem(away.post("/v1/corrections?label=5", png(PAGE)), 404, "--keep FOLDER")
    assert not away.get("/v1/server").json()["keeps_corrections"]
    here = Client(application(models=readers, **kept))
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        passed_on = PNG | {name: "127.0.0.1"}
        problem(here.post("/v1/corrections?label=5", png(PAGE), headers=passed_on), 404)
    without = Client(application(models=readers))
    problem(without.post("/v1/corrections?label=5", png(PAGE)), 404)
    assert not (tmp_path / "kept").exists()
    for client in (away, here, without):
        client.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9"},
    ],
)
def test_a_page_of_another_site_corrects_nothing(readers, tmp_path, headers):
    client = Client(application(models=readers, keep=str(tmp_path)))
    problem(client.post("/v1/corrections?label=5", png(PAGE), headers=PNG | headers), 403)
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
    assert client.post("/v1/corrections?label=5", png(PAGE), headers=PNG | own).status_code == 201
    client.close()


def test_what_cannot_be_kept_is_said(readers, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    client = Client(application(models=readers, keep=str(tmp_path)))
    problem(client.post("/v1/corrections?label=5", png(PAGE)), 409, "classes")
    client.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},  # a name that was let point here, by its own page
        {"Host": "rebound.example:8000", "Origin": "http://rebound.example:8000"},
        {"Host": "digits.example"},  # by a proxy on this machine that keeps the name it was asked
        {"Host": "digits.example", "Origin": "http://digits.example"},
        {"Host": "203.0.113.7", "Origin": "http://203.0.113.7"},
        {"Host": "127.0.0.1:8000", "Origin": "http://digits.example"},  # and one that does not
        {"Host": "127.0.0.1.rebound.example"},
        {"Host": ""},
    ],
)
@pytest.mark.parametrize(
    "settings", [{"hosts": ("digits.example",)}, {"host": "0.0.0.0", "insecure_no_auth": True}]
)
def test_only_this_machines_own_names_take_corrections(readers, tmp_path, headers, settings):
    folder = tmp_path / "kept"
    client = Client(application(models=readers, keep=str(folder), **settings))
    headers = headers | {"Sec-Fetch-Site": "same-origin"}
    answer = client.post("/v1/corrections?label=5", png(PAGE), headers=PNG | headers)
    assert answer.status_code in (403, 404, 421)
    assert not folder.exists()
    told = client.get("/v1/server", headers=headers)
    assert told.status_code == 421 or "Origin" in headers or not told.json()["keeps_corrections"]
    for name in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
        own = PNG | {"Host": name, "Origin": f"http://{name}"}
        assert client.post("/v1/corrections?label=5", png(PAGE), headers=own).status_code == 201
    client.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told(readers, tmp_path, monkeypatch, number):
    client = Client(application(models=readers, keep=str(tmp_path / "kept")))

    def full(file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    told = problem(client.post("/v1/corrections?label=5", png(PAGE)), 507, os.strerror(number))
    assert told["title"] == "Insufficient Storage"
    assert not list((tmp_path / "kept").rglob("*.png"))
    monkeypatch.undo()
    assert client.post("/v1/corrections?label=5", png(PAGE)).status_code == 201
    client.close()
