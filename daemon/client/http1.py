"""HTTP/1.1 (RFC 9112) as a client of one trusted server on a Unix socket needs it.

The rule it protects: a connection is used again only when the last answer was read to its end. The
standard library's ``http.client`` would do all this and more; importing it (with ``email`` and
``ssl``) costs a quarter of the time that a whole submission may take.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import BinaryIO, Final

from daemon.peers import peer_uid

_BLOCK: Final = 1 << 20
_LONGEST_LINE: Final = 1 << 16
_MOST_HEADERS: Final = 100

_BODILESS: Final = frozenset({204, 304})

Body = bytes | BinaryIO | None


class ProtocolError(Exception):
    """The other side speaks no HTTP, or its answer is cut short."""


class BodyChangedError(Exception):
    """A file became shorter while it was sent."""


class Answer:
    """One answer; ``headers`` by lower-case name. ``read`` gives the body."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str], body: _Reader) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self._body = body

    def read(self, most: int | None = None) -> bytes:
        """Return the next ``most`` bytes of the body, or all that is left; empty at its end.

        Raises:
            ProtocolError: the body is cut short.
        """
        if most is not None:
            return self._body.read(most)
        parts = []
        while part := self._body.read(_BLOCK):
            parts.append(part)
        return b"".join(parts)

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self._body.is_over and self.headers.get("connection", "").lower() != "close"


class Connection:
    """An open connection to the server at a socket's path.

    Raises:
        OSError: there is none.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        """Close it."""
        self._file.close()
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, for ``select``."""
        return self._socket.fileno()

    def peer_uid(self) -> int:
        """Return the uid of the process that listens there.

        Raises:
            OSError: the kernel does not say.
        """
        return peer_uid(self._socket)

    def settimeout(self, seconds: float) -> None:
        """Set how long a single send or receive may take."""
        self._socket.settimeout(seconds)

    def send(self, method: str, target: str, headers: Mapping[str, str], body: Body) -> None:
        """Send a request. A file's size must stand in ``headers`` as ``Content-Length``.

        Raises:
            ValueError: a header holds what no header may hold.
            BodyChangedError: the file became shorter; the connection is of no more use.
        """
        given = dict(headers)
        if body is None or isinstance(body, bytes):
            given["Content-Length"] = str(len(body or b""))
        head = _head(method, target, given)
        if isinstance(body, bytes):
            self._socket.sendall(head + body)
            return
        self._socket.sendall(head)
        if body is not None:
            self._send_file(body, int(given["Content-Length"]))

    def _send_file(self, body: BinaryIO, size: int) -> None:
        while size > 0:
            block = body.read(min(_BLOCK, size))
            if not block:
                raise BodyChangedError(f"{size} bytes short")
            self._socket.sendall(block)
            size -= len(block)

    def receive(self, method: str) -> Answer:
        """Read the head of the answer to a request with this method.

        Raises:
            ConnectionError: the server ended the connection before its answer.
            ProtocolError: what comes is no HTTP.
        """
        first = self._file.readline(_LONGEST_LINE)
        if not first:
            raise ConnectionResetError("the connection was ended")
        version, _, rest = first.decode("latin-1").rstrip("\r\n").partition(" ")
        status, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not status.isdecimal() or len(status) != 3:
            raise ProtocolError(f"not an HTTP answer: {first[:60]!r}")
        headers = self._headers()
        number = int(status)
        bodiless = method == "HEAD" or number in _BODILESS
        return Answer(number, reason, headers, _reader(self._file, headers, bodiless=bodiless))

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _ in range(_MOST_HEADERS):
            line = self._file.readline(_LONGEST_LINE).decode("latin-1")
            if line in ("\r\n", "\n"):
                return headers
            name, colon, value = line.partition(":")
            if not colon or not line.endswith("\n"):
                raise ProtocolError(f"not a header: {line[:60]!r}")
            headers[name.strip().lower()] = value.strip()
        raise ProtocolError(f"more than {_MOST_HEADERS} headers")


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the header {name} must be one line of ASCII")
    lines = [f"{method} {target} HTTP/1.1", "Host: studioq"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class _Reader:
    """A body of known length (0: none)."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file = file
        self._left = left

    @property
    def is_over(self) -> bool:
        """Whether the body was read to its end."""
        return self._left == 0

    def read(self, most: int) -> bytes:
        """Return at most so many bytes; empty at the end."""
        data = self._file.read(min(most, self._left))
        if len(data) < min(most, self._left):
            raise ProtocolError(f"the answer is {self._left - len(data)} bytes short")
        self._left -= len(data)
        return data


class _ChunkReader(_Reader):
    """A body in chunks, each with its length before it (RFC 9112, 7.1)."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, 0)
        self._ended = False

    @property
    def is_over(self) -> bool:
        """Whether the last chunk was read."""
        return self._ended

    def read(self, most: int) -> bytes:
        """Return bytes of one chunk; empty after the last."""
        if self._left == 0 and not self._ended:
            self._next()
        data = super().read(most)
        if data and self._left == 0:
            self._line()
        return data

    def _next(self) -> None:
        size = self._line().partition(b";")[0].strip()
        try:
            self._left = int(size, 16)
        except ValueError:
            raise ProtocolError(f"not a chunk's length: {size[:20]!r}") from None
        while self._left == 0 and not self._ended:
            self._ended = self._line() in (b"\r\n", b"\n")

    def _line(self) -> bytes:
        line = self._file.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise ProtocolError("the answer is cut short between two chunks")
        return line


def _reader(file: BinaryIO, headers: Mapping[str, str], *, bodiless: bool) -> _Reader:
    if bodiless:
        return _Reader(file, 0)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _ChunkReader(file)
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise ProtocolError("an answer without a length")
    return _Reader(file, int(length))
