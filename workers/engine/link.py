"""The engine's side of the socketpair: reading, writing, and the signs of life.

The rule this module protects: the engine lives no longer than its worker. A thread of its own reads
the socket, and its end ends the process at once, whatever the GPU is doing.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable

from workers.protocol import Alive, Message, decode, encode

# Exit statuses: a line of the worker's was not understood, a thread of the engine's own failed.
EXIT_PROTOCOL = 65
EXIT_FAULT = 70

_CHUNK = 1 << 18


class Link:
    """The engine's end of the socket; any thread may send."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._writing = threading.Lock()

    def send(self, message: Message) -> None:
        """Send one message.

        Raises:
            ValueError: a number in it is not finite.
        """
        self.send_line(encode(message))

    def send_line(self, line: bytes) -> None:
        """Send an encoded message; without a worker there is nobody left to work for."""
        try:
            with self._writing:
                self._socket.sendall(line)
        except OSError:
            os._exit(0)

    def start_reading(self, put: Callable[[Message], None]) -> None:
        """Give every message that comes to ``put``, from a thread of its own."""
        threading.Thread(target=self._read, args=(put,), name="link", daemon=True).start()

    def _read(self, put: Callable[[Message], None]) -> None:
        rest = b""
        while chunk := self._receive():
            *lines, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else [rest + chunk]
            for line in lines:
                put(_decoded(line))
        os._exit(0)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_CHUNK)
        except OSError:
            return b""


def _decoded(line: bytes) -> Message:
    """Decode a line; going on without one that is not understood could lose a job."""
    try:
        return decode(line)
    except ValueError as error:
        sys.stderr.write(f"studioq-engine: {error}\n")
        sys.stderr.flush()
        os._exit(EXIT_PROTOCOL)


class Pulse:
    """A sign of life every few seconds, also while MLX computes (it releases Python's lock)."""

    def __init__(self, link: Link, every: float) -> None:
        self._link = link
        self._every = every
        self._look: Callable[[], Alive] = Alive
        self._end = threading.Event()

    def start(self) -> None:
        """Begin to beat."""
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def show(self, look: Callable[[], Alive]) -> None:
        """Send what ``look`` returns from now on; it is called in the pulse's thread."""
        self._look = look

    def _beat(self) -> None:
        while not self._end.wait(self._every):
            self._link.send(self._look())
