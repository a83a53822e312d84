"""The page: one file, sent with a policy that lets run what is in it, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from rowwise.server.answers import Answer

_BLOCK = r"<{0}(?:\s[^>]*)?>(.*?)</{0}\s*>"


def content() -> bytes:
    """The page's file."""
    return resources.files("rowwise.server").joinpath("page.html").read_bytes()


def answer(text: bytes) -> Answer:
    """The page as a response, with the policy for its own scripts and styles."""
    headers = {"content-security-policy": policy(text.decode()), "cache-control": "no-cache"}
    return Answer(text, media_type="text/html; charset=utf-8", headers=headers)


def policy(text: str) -> str:
    """A Content-Security-Policy under which a page's inline scripts and styles run, by their hash.

    Attributes such as onclick and style do not.
    """
    scripts, styles = (_hashes(text, tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; "
        "img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(text: str, tag: str) -> str:
    # A browser hashes the text as it has normalised its line ends.
    found = re.findall(_BLOCK.format(tag), text, re.DOTALL | re.IGNORECASE)
    digests = [hashlib.sha256(one.replace("\r\n", "\n").encode()).digest() for one in found]
    return " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests) or "'none'"
