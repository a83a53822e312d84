"""README.md: commands exist, its Python runs, links lead somewhere, its lists are current."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

from pages import ROOT, check_commands, check_links, console_lines, fenced

README = ROOT / "README.md"
TEXT = README.read_text("utf-8")


def test_the_generated_parts_are_current():
    made = subprocess.run(
        [sys.executable, "docs/make_readme.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr


def test_every_source_file_has_its_line():
    (tree,) = re.findall(r"<!-- layout -->\s+```text\n(.*?)```", TEXT, re.DOTALL)
    listed = re.findall(r"^ +(\S+\.\w+) ", tree, re.MULTILINE)
    built = ("*.pyc", "*.so", "*.part", "build.json")
    files = [
        path
        for path in (ROOT / "src" / "rowwise").rglob("*.*")
        if not any(path.match(pattern) for pattern in built)
    ]
    assert sorted(listed) == sorted(path.name for path in files)


def test_every_command_exists():
    assert len(console_lines(TEXT)) >= 8
    check_commands(TEXT)


def test_every_link_leads_somewhere():
    check_links(README)


def test_the_python_block_runs_as_written(home, capfd):
    (block,) = fenced(TEXT, "python")
    assert len(block.splitlines()) <= 16
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    said = capfd.readouterr()
    assert "Total params: " in said.out
    assert "% of the test images read rightly" in said.out
    assert "Epoch 10/10" in said.err


def test_the_table_of_extras_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    listed = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", TEXT, re.MULTILINE)
    assert set(listed) == set(project["optional-dependencies"])
    for extras in re.findall(r"\.\[([\w,]+)\]", TEXT):
        assert set(extras.split(",")) <= set(listed)


def test_the_place_for_results_is_marked_once():
    assert TEXT.count("<!-- results -->") == TEXT.count("<!-- /results -->") == 1
