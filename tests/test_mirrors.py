"""Downloads from a local server that behaves as badly as the real ones sometimes do."""

import gzip
import os
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from made_data import FILES, known_set, quartet, tree

from rowwise import catalogue, idx, mirrors
from rowwise.errors import DataMissing

ARRAYS = quartet()
PACKED = {
    f"{name}.gz": gzip.compress(idx.encode(array), mtime=0)
    for name, array in zip(FILES, ARRAYS, strict=True)
}


class Server:
    """Answers under `/NAME/` as the function `NAME` below says; counts what it was asked for."""

    def __init__(self):
        self.asked = []
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                behaviour, _, name = self.path.strip("/").partition("/")
                outer.asked.append((behaviour, name))
                getattr(outer, behaviour)(self, name)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.block_on_close = False
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, behaviour):
        return f"http://127.0.0.1:{self.http.server_address[1]}/{behaviour}/"

    def close(self):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def send(self, request, body, *, status=200, length=None, headers=()):
        request.send_response(status)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers:
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def good(self, request, name):
        self.send(request, PACKED[name])

    def plain(self, request, name):
        self.send(request, gzip.decompress(PACKED[name]))

    def unpacked(self, request, name):
        self.send(request, PACKED[name], headers=[("Content-Encoding", "gzip")])

    def forbidden(self, request, name):
        self.send(request, b"no", status=403)

    def busy(self, request, name):
        self.send(request, b"later", status=503)

    def busy_once(self, request, name):
        first = self.asked.count(("busy_once", name)) == 1
        self.busy(request, name) if first else self.good(request, name)

    def refused(self, request, name, *, status):
        self.send(request, b"no", status=status)

    def __getattr__(self, name):
        """`answers_425` and the like refuse with that status."""
        if not name.startswith("answers_"):
            raise AttributeError(name)
        return partial(self.refused, status=int(name.removeprefix("answers_")))

    def cut(self, request, name):
        self.send(request, PACKED[name][:-9], length=len(PACKED[name]))

    def cut_short(self, request, name):
        self.send(request, PACKED[name][:-9])

    def login_page(self, request, name):
        self.send(request, b"<html>please log in</html>")

    def other_data(self, request, name):
        self.send(request, gzip.compress(idx.encode(quartet(seed=5)[FILES.index(name[:-3])])))

    def endless(self, request, name):
        self.send(request, bytes(1 << 20))

    def silent(self, request, name):
        self.closing.wait(30)

    def silent_after_half(self, request, name):
        self.send(request, PACKED[name][:20], length=len(PACKED[name]))
        request.wfile.flush()
        self.closing.wait(30)

    def dripping(self, request, name):
        self.send(request, b"", length=len(PACKED[name]))
        for byte in PACKED[name]:
            if self.closing.wait(0.05):
                break
            request.wfile.write(bytes([byte]))

    def slow(self, request, name):
        self.closing.wait(0.4)
        self.good(request, name)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(mirrors, "_PAUSE_S", 0.01)
    server = Server()
    yield server
    server.close()


def fetch(folder, *addresses, budget_s=5.0, **options):
    lines = []
    hosts = mirrors.fetch(
        known_set(ARRAYS),
        folder,
        mirrors=addresses,
        budget_s=budget_s,
        report=lines.append,
        **options,
    )
    return hosts, lines


@pytest.mark.parametrize("behaviour", ["good", "busy_once"])
def test_success(server, tmp_path, behaviour):
    folder = tmp_path / "cache" / "mnist"
    hosts, lines = fetch(folder, server.url(behaviour))
    assert tree(folder) == PACKED
    assert hosts == (f"127.0.0.1:{server.http.server_address[1]}",)
    assert lines[0] == f"MNIST: downloading {server.url(behaviour)}{FILES[0]}.gz"
    assert len(server.asked) == (4 if behaviour == "good" else 8)


@pytest.mark.parametrize("behaviour", ["plain", "unpacked"])
def test_files_that_arrive_unpacked_are_kept_so(server, tmp_path, behaviour):
    fetch(tmp_path, server.url(behaviour))
    assert tree(tmp_path) == {name[:-3]: gzip.decompress(raw) for name, raw in PACKED.items()}


def test_what_is_there_is_not_asked_for_again(server, tmp_path):
    (tmp_path / FILES[0]).write_bytes(gzip.decompress(PACKED[f"{FILES[0]}.gz"]))
    (tmp_path / f"{FILES[1]}.gz").write_bytes(PACKED[f"{FILES[1]}.gz"])
    (tmp_path / FILES[2]).write_bytes(b"damaged")
    (tmp_path / f"{FILES[3]}.gz").write_bytes(PACKED[f"{FILES[3]}.gz"][:-3])
    fetch(tmp_path, server.url("good"))
    assert [name for _, name in server.asked] == [f"{FILES[2]}.gz", f"{FILES[3]}.gz"]
    assert sorted(tree(tmp_path)) == sorted([FILES[0], *(f"{name}.gz" for name in FILES[1:])])
    assert fetch(tmp_path, "http://127.0.0.1:9/")[0] == ()


@pytest.mark.parametrize(
    ("behaviour", "words", "times"),
    [
        ("forbidden", "answered 403 Forbidden", 1),
        ("busy", "answered 503 Service Unavailable", 3),
        # What may be over soon is asked again: too slow, too early, too many.
        ("answers_408", "answered 408 Request Timeout", 3),
        ("answers_425", "answered 425 Too Early", 3),
        ("answers_429", "answered 429 Too Many Requests", 3),
        ("answers_404", "answered 404 Not Found", 1),
        ("answers_410", "answered 410 Gone", 1),
        ("cut", "IncompleteRead", 3),
        ("cut_short", "found a damaged one; fetch it again (Compressed file ended before", 3),
        ("login_page", "expected the 31,376 bytes of train-images-idx3-ubyte, found 26", 1),
        ("other_data", "with sha256 ", 3),
        ("endless", "sent more than ", 1),
    ],
)
def test_failure(server, tmp_path, behaviour, words, times):
    with pytest.raises(DataMissing) as caught:
        fetch(tmp_path / "new", server.url(behaviour))
    message = str(caught.value)
    assert message.startswith("MNIST's train-images-idx3-ubyte could not be downloaded (127.0.0.1:")
    assert words in message
    assert len(server.asked) == times
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "behaviour",
    ["forbidden", "busy", "cut", "cut_short", "login_page", "other_data", "endless", "silent"],
)
def test_the_next_mirror_answers(server, tmp_path, behaviour):
    hosts, lines = fetch(tmp_path, server.url(behaviour), server.url("good"), budget_s=1.0)
    assert tree(tmp_path) == PACKED
    assert len(hosts) == 1
    assert sum(" failed for " in line for line in lines) == 1
    # the mirror that failed is not asked first for the other files
    assert [kind for kind, _ in server.asked] == [behaviour, *["good"] * 4]


@pytest.mark.parametrize("behaviour", ["silent", "silent_after_half", "dripping"])
def test_no_progress_ends_within_the_budget(server, tmp_path, behaviour):
    start = time.monotonic()
    with pytest.raises(DataMissing, match=r"no data for 0\.[35] s|[Tt]imed out"):
        fetch(tmp_path, server.url(behaviour), server.url(f"{behaviour}"), budget_s=0.6)
    assert time.monotonic() - start < 2.5
    assert tree(tmp_path) == {}


def test_data_that_arrives_renews_the_patience(server, tmp_path):
    start = time.monotonic()
    fetch(tmp_path, server.url("slow"), budget_s=0.9)
    assert time.monotonic() - start > 1.4
    assert tree(tmp_path) == PACKED


@pytest.mark.usefixtures("server")
def test_a_closed_port_is_quick(tmp_path):
    start = time.monotonic()
    with pytest.raises(DataMissing, match="Connection refused"):
        fetch(tmp_path, "http://127.0.0.1:9/", "http://127.0.0.1:9/")
    assert time.monotonic() - start < 5


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataMissing, match=r"kept in .*file/mnist: .*; choose another folder"):
        fetch(tmp_path / "file" / "mnist", server.url("good"))


def test_a_full_disk_leaves_nothing(server, tmp_path, monkeypatch):
    def write_some(self, raw):
        with self.open("wb") as file:
            file.write(raw[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_some)
    with pytest.raises(DataMissing, match=r"cannot be kept in .*: No space left on device"):
        fetch(tmp_path, server.url("good"))
    assert tree(tmp_path) == {}


def test_progress_is_drawn_on_stderr(server, tmp_path, capsys):
    fetch(tmp_path, server.url("busy_once"), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert FILES[3] in err


TWO = """
import sys
from pathlib import Path
from made_data import known_set, quartet
from rowwise import mirrors
print(mirrors.fetch(known_set(quartet()), Path(sys.argv[1]), mirrors=[sys.argv[2]]))
"""


def test_two_processes_at_once(server, tmp_path):
    folder = tmp_path / "cache"
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(Path(mirrors.__file__).parents[1])])
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(folder), server.url("slow")],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    seen = set()
    while any(process.poll() is None for process in both):
        for name, raw in whole_files(folder).items():
            assert raw == PACKED[name]  # never a part of a file under its own name
            seen.add(name)
        time.sleep(0.005)
    for process in both:
        out, err = process.communicate()
        assert process.returncode == 0, err.decode()
        assert b"127.0.0.1" in out
    assert tree(folder) == PACKED
    assert seen


def whole_files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.gz")}


def test_a_verified_file_is_what_the_catalogue_says():
    for name, array in zip(FILES, ARRAYS, strict=True):
        file = known_set(ARRAYS).files[FILES.index(name)]
        catalogue.verify(file, PACKED[f"{name}.gz"], "made")
        assert np.array_equal(
            idx.decode(PACKED[f"{name}.gz"], axes=array.ndim, source="made"), array
        )
