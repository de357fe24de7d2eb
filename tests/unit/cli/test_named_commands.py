"""Every command that a message, the README or the documentation names can be typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cli.root import SECTIONS

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = {name for section in SECTIONS.values() for name in section}
NAMED = re.compile(r"(?<![\w/.-])studioq ([a-z][a-z-]*)")

# What follows the program's name where a message speaks about it: no commands, nor ever to be any.
PROSE = frozenset(
    re.findall(
        r"\w+",
        "a and command did does has home in is job know knows ledger lets may needs never reads "
        "recorded runs ships where works wrote",
    )
)


def strings(source: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each string constant, an f-string's fixed parts, and the docstrings."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def code_of(page: Path) -> Iterator[str]:
    """Yield what a Markdown page sets as code: fenced blocks, then spans."""
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
    yield from fence.findall(text)
    yield from re.findall(r"`[^`]+`", fence.sub("", text))


@pytest.mark.parametrize("package", ["daemon", "workers"])
def test_messages_name_commands_that_exist(package: str) -> None:
    unknown = [
        f"{source.relative_to(ROOT)}:{line}: studioq {word}"
        for source in sorted((ROOT / package).rglob("*.py"))
        for line, text in strings(source)
        for word in NAMED.findall(text)
        if word not in COMMANDS | PROSE
    ]

    assert unknown == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_pages_name_commands_that_exist(page: Path) -> None:
    unknown = [
        f"studioq {word}"
        for code in code_of(page)
        for word in NAMED.findall(code)
        if word not in COMMANDS | PROSE
    ]

    assert unknown == []


def test_no_command_is_taken_for_prose() -> None:
    assert not COMMANDS & PROSE
