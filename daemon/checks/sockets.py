"""Asking what listens on a socket: a studioq daemon over HTTP, or a Redis server.

Each question is one short exchange with a time limit, and leaves nothing behind.
"""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

PATIENCE = 2.0  # seconds
LONGEST_ANSWER = 2**20  # bytes


def alive(path: Path) -> bool:
    """Return whether something listens on the Unix socket ``path``."""
    try:
        _unix(path).close()
    except OSError:
        return False
    return True


def ask_daemon(path: Path) -> dict[str, Any]:
    """Return the answer of ``GET /status`` of the daemon on ``path``.

    Raises:
        OSError: nobody listens, or the answer does not come.
        ValueError: what answers is not a studioq daemon.
    """
    with _unix(path) as connection:
        connection.sendall(b"GET /status HTTP/1.1\r\nHost: studioq\r\nConnection: close\r\n\r\n")
        reply = bytearray()
        piece = connection.recv(65536)
        while piece and len(reply) < LONGEST_ANSWER:
            reply += piece
            piece = connection.recv(65536)
    head, _, body = bytes(reply).partition(b"\r\n\r\n")
    if head.split(b" ")[1:2] != [b"200"]:
        raise ValueError(f"it answers {head[:60]!r}")
    status = json.loads(body.decode("utf-8"))
    if not isinstance(status, dict):
        raise ValueError("it answers no status")
    return status


def ping_redis(url: str) -> str:
    """Return a Redis server's answer to PING at ``redis://``, ``rediss://`` or ``unix://``.

    Raises:
        OSError: nobody listens there.
        ValueError: the URL is of another kind.
    """
    parts = urlsplit(url)
    with _redis_connection(parts) as connection:
        if parts.password:
            user = [unquote(parts.username)] if parts.username else []
            reply = _command(connection, "AUTH", *user, unquote(parts.password))
            if not reply.startswith("+"):
                return reply
        return _command(connection, "PING")


def without_password(url: str) -> str:
    """Return the URL as it may be shown."""
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":…@") if parts.password else url


def _redis_connection(url: SplitResult) -> socket.socket:
    if url.scheme == "unix":
        return _unix(Path(unquote(url.path)))
    if url.scheme not in {"redis", "rediss"}:
        raise ValueError(f"{url.scheme!r} is none of redis, rediss and unix")
    name = url.hostname or "localhost"
    connection = socket.create_connection((name, url.port or 6379), timeout=PATIENCE)
    if url.scheme == "redis":
        return connection
    try:
        return ssl.create_default_context().wrap_socket(connection, server_hostname=name)
    except OSError:
        connection.close()
        raise


def _command(connection: socket.socket, *words: str) -> str:
    """Send one command in Redis's protocol and return the first line of the answer."""
    parts = [word.encode("utf-8") for word in words]
    body = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    connection.sendall(b"*%d\r\n" % len(parts) + body)
    reply = bytearray()
    while not reply.endswith(b"\r\n") and len(reply) < LONGEST_ANSWER:
        piece = connection.recv(4096)
        if not piece:
            break
        reply += piece
    return reply.decode("utf-8", "replace").strip()


def _unix(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection
