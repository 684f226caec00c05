"""The documentation's code runs, and prints what the page says it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_page(text: str, name: str) -> dict[str, Any]:
    """Run the ``python`` blocks of a page in order in one namespace; a ``text`` block after one is its whole output."""
    namespace: dict[str, Any] = {"__name__": "page"}
    printed = io.StringIO()
    for block in FENCE.finditer(text):
        language, code = block.groups()
        line = text[: block.start(2)].count("\n")
        if language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                # blank lines in front, so that a traceback names the line of the page
                exec(compile("\n" * line + code, name, "exec"), namespace)
        elif language == "text":
            assert printed.getvalue() == code, f"{name}:{line}: the page does not show what its code prints"
    return namespace


def compiler_lines(text: str) -> int:
    """Lines of the ``python`` blocks that are not examples, without comments, docstrings and blank lines."""
    blocks = (code for language, code in FENCE.findall(text) if language == "python")
    lines = [line.strip() for code in blocks if not code.startswith("# example") for line in code.splitlines()]
    return sum(1 for line in lines if line and not line.startswith(("#", '"""')))


# Pages whose code is run.
PAGES = ("README.md", "docs/graphc_in_300_lines.md", "docs/pytorch.md", "docs/checkpoints.md", "docs/compile.md")


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page((ROOT / page).read_text(), page)


def test_graphc_in_300_lines_has_at_most_that_many() -> None:
    assert compiler_lines((ROOT / "docs/graphc_in_300_lines.md").read_text()) <= 300


def test_a_page_that_shows_other_output_is_found() -> None:
    page = "```python\nprint(1 + 1)\n```\n\n```text\n{}\n```\n"
    run_page(page.format(2), "page")
    with pytest.raises(AssertionError, match="does not show"):
        run_page(page.format(3), "page")


def test_a_page_whose_code_fails_is_found() -> None:
    with pytest.raises(ZeroDivisionError):
        run_page("Text.\n\n```python\n1 / 0\n```\n", "page")
