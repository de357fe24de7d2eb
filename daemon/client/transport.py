"""HTTP/1.1 over a Unix socket, on one kept connection.

The rule it protects: a request that may have had an effect is never sent twice. Only GET and HEAD
are repeated when a kept connection turns out to have ended.
"""

from __future__ import annotations

import json
import select
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from daemon.client.http1 import Answer, Body, BodyChangedError, Connection, ProtocolError
from daemon.errors import DaemonAwayError, StudioqError, UsageError

_REPEATABLE = frozenset({"GET", "HEAD"})


class Transport:
    """Requests to the daemon at one socket. Not for use by several threads at once.

    ``timeout`` is the longest silence in seconds before the daemon counts as away; ``on_version``
    is told the daemon's version by its first answer; ``start`` is called when no daemon answers the
    first connection (and never later: who waits does not start what somebody stopped); ``admit`` is
    told the uid of who listens before anything is sent, and raises to send nothing.
    """

    def __init__(
        self,
        path: str,
        *,
        timeout: float,
        on_version: Callable[[str], None] | None = None,
        start: Callable[[], None] | None = None,
        admit: Callable[[int], None] | None = None,
    ) -> None:
        self.path = path
        self.timeout = timeout
        self.version: str | None = None
        self._on_version = on_version
        self._start = start
        self._admit = admit
        self._connection: Connection | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def json(
        self,
        method: str,
        target: str,
        data: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        patience: float = 0.0,
    ) -> Any:
        """Send ``data`` as JSON and return the parsed answer.

        ``patience``: seconds that the daemon may take beyond the usual timeout (long polls).

        Raises:
            StudioqError: the error that the daemon answered, of its own class.
            DaemonAwayError: no daemon answers.
        """
        body = None if data is None else _encode(data)
        sent = dict(headers or {}) | ({"Content-Type": "application/json"} if body else {})
        with self.open(method, target, body=body, headers=sent, patience=patience) as response:
            return _parse(response.read() or b"null")

    @contextmanager
    def open(
        self,
        method: str,
        target: str,
        *,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 0.0,
        accept: int | None = None,
    ) -> Iterator[Answer]:
        """Send a request and give the answer, whose body the caller reads inside the block.

        ``accept`` is an error status that the caller wants to see as an answer.

        Raises:
            StudioqError: the daemon answered with an error.
            DaemonAwayError: no daemon answers, or it went away in between.
        """
        response = None
        try:
            response = self._exchange(method, target, body, dict(headers or {}), patience)
            if response.status >= 400 and response.status != accept:
                raise _error(response)
            yield response
        except TimeoutError:
            response = None
            raise self._silent(self.timeout + patience) from None
        except ConnectionError as error:
            response = None
            raise self._gone(method) from error
        except ProtocolError as error:
            response = None
            raise StudioqError(
                f"what answers at {self.path} is no studioq daemon, or broke off: {error}",
                remedy="studioq doctor",
            ) from error
        finally:
            # What is left of a body would be taken for the next answer.
            if response is None or not response.is_reusable:
                self.close()

    def _exchange(
        self, method: str, target: str, body: Body, headers: dict[str, str], patience: float
    ) -> Answer:
        kept = self._is_kept()
        try:
            return self._send(method, target, body, headers, patience)
        except ConnectionError:
            self.close()
            if not (kept and method in _REPEATABLE):
                raise
        return self._send(method, target, body, headers, patience)

    def _send(
        self, method: str, target: str, body: Body, headers: dict[str, str], patience: float
    ) -> Answer:
        connection = self._connected()
        connection.settimeout(self.timeout + patience)
        try:
            connection.send(method, target, headers, body)
        except ConnectionError:
            if body is None:
                raise
            # A refused upload is answered before it has been read to its end.
        except ValueError as error:
            raise UsageError(str(error)) from None
        except BodyChangedError:
            raise UsageError(
                "the file became shorter while it was uploaded; submit again"
            ) from None
        answer = connection.receive(method)
        self._notice(answer.headers.get("studioq-version"))
        return answer

    def _is_kept(self) -> bool:
        """Return whether an earlier connection still stands; drop one that the daemon has ended."""
        if self._connection is not None and _readable(self._connection):
            self.close()
        return self._connection is not None

    def _connected(self) -> Connection:
        if self._connection is None:
            start, self._start = self._start, None
            try:
                self._connection = self._connect()
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if start is None:
                    raise self._away(error) from None
                start()
                self._connection = self._connect()
            except OSError as error:
                raise self._away(error) from error
        return self._connection

    def _connect(self) -> Connection:
        """Open a connection to a daemon that may be told everything."""
        connection = Connection(self.path, self.timeout)
        try:
            if self._admit is not None:
                self._admit(connection.peer_uid())
        except BaseException:
            connection.close()
            raise
        return connection

    def _notice(self, version: str | None) -> None:
        if version is None or version == self.version:
            return
        self.version = version
        if self._on_version is not None:
            self._on_version(version)

    def _away(self, error: OSError) -> StudioqError:
        if isinstance(error, PermissionError):
            return DaemonAwayError(
                f"you may not open the daemon's socket {self.path}",
                remedy="ask the person who installed the daemon",
            )
        if not isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return DaemonAwayError(f"the socket {self.path} cannot be opened: {error}")
        return DaemonAwayError(f"no daemon answers at {self.path}", remedy="studioq daemon start")

    def _silent(self, seconds: float) -> DaemonAwayError:
        return DaemonAwayError(
            f"the daemon at {self.path} gave no answer within {seconds:.0f} s",
            remedy="studioq doctor",
        )

    def _gone(self, method: str) -> DaemonAwayError:
        unsure = method not in _REPEATABLE
        return DaemonAwayError(
            f"the daemon at {self.path} ended the connection before its answer",
            remedy="studioq list shows whether it was done" if unsure else "studioq daemon status",
        )


def _readable(connection: Connection) -> bool:
    """Return whether bytes or the end are there; both end an idle connection."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _encode(data: object) -> bytes:
    try:
        return json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        part = error.object[max(0, error.start - 10) : error.end + 10]
        raise UsageError(f"a text holds bytes that are not UTF-8, near {part!r}") from None
    except ValueError:
        raise UsageError(
            "a number is infinite or not a number; JSON and studioq know neither"
        ) from None


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise StudioqError(
            f"the daemon's answer is not JSON: {body[:80]!r}", remedy="studioq daemon restart"
        ) from None


def _error(response: Answer) -> StudioqError:
    """Rebuild the error that an answer carries."""
    body = response.read()
    try:
        return StudioqError.from_dict(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return StudioqError(
            f"the daemon answered {response.status} {response.reason}: {body[:200]!r}",
            remedy="studioq daemon restart, if client and daemon are not of the same version",
        )
