"""A person's settings of the interface: theme and keys.

The rule this module protects: a file that is wrong costs a message and not the program.
``tui.toml`` is the person's own and only read; what the program remembers by itself lies in another
file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE, MEMORY = "tui.toml", "tui.json"
DARK, LIGHT = "textual-dark", "textual-light"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``keymap``: keys by the binding's id. ``problems`` are to be shown once."""

    theme: str | None = None
    keymap: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def settings_folder() -> Path:
    """Return the folder of the settings: the platform's place for configurations."""
    from platformdirs import user_config_path

    return user_config_path("studioq", appauthor=False)


def read_settings(folder: Path) -> Settings:
    """Read ``tui.toml`` and what is remembered; what the person wrote counts more."""
    given, problems = _read_toml(folder / FILE)
    remembered = _read_json(folder / MEMORY)
    theme = given.get("theme", remembered.get("theme"))
    keys = _flat(given.get("keys", {}))
    wrong = [name for name, key in keys.items() if not isinstance(key, str)]
    problems += [f"{FILE}: keys.{name} = {keys[name]!r} is not a text" for name in wrong]
    keymap = {name: key for name, key in keys.items() if isinstance(key, str)}
    if theme is not None and not isinstance(theme, str):
        problems.append(f"{FILE}: theme = {theme!r} is not a text")
        theme = None
    return Settings(theme=theme, keymap=keymap, problems=tuple(problems))


def remember_theme(folder: Path, theme: str) -> None:
    """Keep the theme for the next start; nothing is said if that cannot be."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MEMORY).write_text(json.dumps({"theme": theme}), encoding="utf-8")


def _read_toml(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), []
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        return {}, [f"{path} is not used: {error}"]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return ``{"jobs": {"sort": …}}``, as TOML reads ``jobs.sort``, as ``{"jobs.sort": …}``."""
    if not isinstance(table, dict):
        return {}
    flat: dict[str, Any] = {}
    for name, value in table.items():
        nested = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        flat |= {f"{prefix}{name}": value} if nested is None else nested
    return flat
