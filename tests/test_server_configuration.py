"""Settings: flags over environment over file over defaults; what is wrong is one line."""

from __future__ import annotations

import re

import pytest
from made_server import KEY

from rowwise import options
from rowwise.errors import ConfigError
from rowwise.server.configuration import PREFIX, Configuration, configuration
from rowwise.serving import serve


def made(flags=None, file=None, **environment: str) -> Configuration:
    return configuration(flags or {}, file=file, environment=environment)


def test_what_wins(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nworkers = 2\nbatch = 3\nhost = "::1"\nmodels = ["a", "b"]\n')
    environment = {"ROWWISE_SERVE_WORKERS": "4", "ROWWISE_SERVE_BATCH": "5", "OTHER": "x"}
    got = made({"batch": 6, "port": None}, file, **environment)
    assert (got.port, got.workers, got.batch, got.host) == (1, 4, 6, "::1")
    assert got.models == ("a", "b")
    assert made() == Configuration()


def test_the_environment_has_every_key_in_its_own_type():
    got = made(
        ROWWISE_SERVE_HOST="8000",
        ROWWISE_SERVE_PORT="9000",
        ROWWISE_SERVE_GRACE_S="1.5",
        ROWWISE_SERVE_ACCESS_LOG="false",
        ROWWISE_SERVE_MODELS="rows, runs/a ,",
        ROWWISE_SERVE_API_KEYS=f"{KEY},{KEY}2",
        ROWWISE_SERVE_DEFAULT="true",
    )
    assert (got.host, got.port, got.grace_s, got.access_log) == ("8000", 9000, 1.5, False)
    assert got.models == ("rows", "runs/a")
    assert got.api_keys == (KEY, f"{KEY}2")
    assert got.default == "true"


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({"ROWWISE_SERVE_PROT": "1"}, "unknown key 'prot'; did you mean 'port'?"),
        ({"ROWWISE_SERVE_PORT": "70000"}, "ROWWISE_SERVE_PORT: port"),
        ({"ROWWISE_SERVE_PORT": "eighty"}, "whole number, got 'eighty'"),
        ({"ROWWISE_SERVE_ACCESS_LOG": "maybe"}, "true or false"),
        ({"ROWWISE_SERVE_WORKERS": "0"}, "workers"),
    ],
)
def test_the_environment_is_checked(environment, part):
    with pytest.raises(ConfigError, match=re.escape(part)):
        made(**environment)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("prot = 1", "did you mean 'port'?"),
        ("port = 'x'", "port: should be a whole number"),
        ("port = true", "port: should be a whole number"),
        ("grace_s = -1", "grace_s"),
        ("batch_wait_ms = inf", "batch_wait_ms"),
        ("models = 3", "models: should be a list"),
        ("port", "not valid TOML"),
    ],
)
def test_the_file_is_checked(tmp_path, text, part):
    file = tmp_path / "serve.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(part)) as raised:
        made(file=file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("value", ["1234567890123456789", "[1, 2]", "{ a = 'sesame-open' }"])
def test_keys_are_not_repeated_when_they_are_wrong(tmp_path, value):
    file = tmp_path / "serve.toml"
    file.write_text(f"api_keys = {value}")
    with pytest.raises(ConfigError, match="api_keys: should be a list of strings") as raised:
        made(file=file)
    assert "1234" not in str(raised.value)
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize("value", ["", " ", ",", " , "])
def test_keys_that_are_set_but_none_start_nothing(value):
    with pytest.raises(ConfigError, match="ROWWISE_SERVE_API_KEYS"):
        made(ROWWISE_SERVE_API_KEYS=value)


@pytest.mark.parametrize("key", ["key_file", "hosts"])
def test_what_protects_is_not_set_to_nothing(tmp_path, key):
    with pytest.raises(ConfigError, match=f"{key}: .*set and empty"):
        made(**{f"ROWWISE_SERVE_{key.upper()}": ""})
    file = tmp_path / "serve.toml"
    file.write_text(f'{key} = ""\n')
    with pytest.raises(ConfigError, match="set and empty"):
        made(file=file)
    assert made(file=None) == Configuration()


def test_keys_are_not_shown():
    shown = Configuration(api_keys=(KEY,))
    assert KEY not in repr(shown)
    assert KEY not in str(shown)


def test_every_key_but_the_keys_has_a_flag():
    """A flag can be seen by every user of the machine: keys have none."""
    import inspect

    names = {"model": "models", "origin": "origins", "host_name": "hosts", "proxy": "proxies"}
    flags = {names.get(name, name) for name in inspect.signature(serve).parameters} - {"config"}
    assert flags == set(Configuration.model_fields) - {"api_keys"}
    assert not [name for name in dir(options) if "api" in name.lower()]
    assert PREFIX == "ROWWISE_SERVE_"
