"""The API's own description, and hundreds of requests made from it."""

from __future__ import annotations

from collections import Counter

import hypothesis
import pytest
import schemathesis
from made_server import KEY, Client, application, recognisers
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CASES = 100  # of each operation


@pytest.fixture(scope="module")
def readers():
    return recognisers()


def described(**settings) -> dict:
    return application(models=recognisers(), **settings).api.openapi()


# --- what it tells ----------------------------------------------------------------------------


def test_every_operation_tells_its_problems_with_examples():
    told = described()
    assert told["openapi"].startswith("3.1")
    for path, ways in told["paths"].items():
        for way in ways.values():
            where = f"{path} {way['operationId']}"
            assert way["summary"], where
            assert way["description"], where
            for code, answer in way["responses"].items():
                if path == "/metrics" and code == "200":
                    continue
                [(kind, content)] = answer["content"].items()
                assert content["example"], f"{where} {code}"
                assert kind == (
                    "application/json" if code[0] == "2" else "application/problem+json"
                )
            if "requestBody" in way:
                content = way["requestBody"]["content"]
                assert {"application/json", "multipart/form-data"} <= set(content)
                assert content["application/json"]["examples"]


def test_the_examples_of_bodies_are_answered(readers):
    client = Client(application(models=readers))
    for path in ("/v1/read", "/v1/read-many"):
        body = client.app.api.openapi()["paths"][path]["post"]["requestBody"]["content"]
        for example in body["application/json"]["examples"].values():
            assert client.post(path, json=example["value"]).status_code == 200
    client.close()


def test_keys_are_told_where_they_are_needed():
    open_ones = described()
    keyed = described(api_keys=(KEY,))
    assert keyed["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert keyed["paths"]["/v1/read"]["post"]["security"] == [{"key": []}]
    assert "security" not in keyed["paths"]["/healthz"]["get"]
    assert open_ones["paths"]["/v1/read"]["post"]["security"] == []


def test_no_page_that_fetches_from_elsewhere(readers):
    client = Client(application(models=readers))
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    client.close()


# --- requests made from it --------------------------------------------------------------------

WANTED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


def try_all(app, count: int) -> Counter[int]:
    """Answers to so many requests of each operation, made from the description, are as told.

    Half of the requests keep to the description, half break it. The statuses, and how often.
    """
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "localhost"})
    codes: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        good, bad = (operation.as_strategy(generation_mode=mode) for mode in modes)

        @hypothesis.given(case=good | bad)
        @hypothesis.settings(
            max_examples=count,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def run(case) -> None:
            case.headers = {**(case.headers or {}), "Host": "localhost"}
            response = case.call()
            codes[response.status_code] += 1
            case.validate_response(response, checks=WANTED)

        run()
    return codes


def test_hundreds_of_requests_have_the_answers_that_are_told(readers, tmp_path):
    app = application(models=readers, keep=str(tmp_path))
    codes = try_all(app, CASES)
    assert codes.total() > 300
    assert {200, 400, 422} <= set(codes)
    app.service.stop()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_requests_have_the_answers_that_are_told(readers, tmp_path):
    app = application(models=readers, keep=str(tmp_path))
    assert try_all(app, 2800).total() > 10_000
    app.service.stop()
