"""HTTP over a Unix socket, against a server that misbehaves in every way a connection can."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.client.transport import Transport
from daemon.errors import DaemonAwayError, SpecRefusedError, StudioqError, UsageError

Handler = Callable[[socket.socket, bytes], bool]
OK_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nStudioq-Version: 9.9.9\r\n\r\ntrue"


def answering(answer: bytes, *, stay: bool = True) -> Handler:
    def handler(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(answer)
        return stay

    return handler


class Server:
    """Answers each request with ``handler(connection, head)``; false ends the connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handler: Handler = answering(OK_ANSWER)
        self.heads: list[str] = []
        self.connections = 0
        self.idle = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.idle.clear()
            with connection:
                while (head := self._head(connection)) and self._handled(connection, head):
                    pass
            self.idle.set()

    def _handled(self, connection: socket.socket, head: bytes) -> bool:
        self.heads.append(head.decode().splitlines()[0])
        try:
            return self.handler(connection, head)
        except ConnectionError:  # the client has left
            return False

    def _head(self, connection: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            try:
                piece = connection.recv(1)
            except ConnectionError:
                return b""
            if not piece:
                return b""
            head += piece
        length = [
            line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        ]
        if length and b"PUT" not in head:
            connection.recv(int(length[0].split(b":")[1]), socket.MSG_WAITALL)
        return head

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    served = Server(tmp_path_factory.mktemp("s") / "s.sock")
    yield served
    served.close()


@pytest.fixture
def transport(server: Server) -> Iterator[Transport]:
    opened = Transport(str(server.path), timeout=5.0)
    yield opened
    opened.close()


def test_one_connection_serves_many_requests(server: Server, transport: Transport) -> None:
    assert [transport.json("GET", "/a"), transport.json("POST", "/b", {})] == [True, True]
    assert server.connections == 1


def test_a_connection_that_was_closed_while_idle_is_replaced(
    server: Server, transport: Transport
) -> None:
    server.handler = answering(OK_ANSWER, stay=False)
    assert transport.json("GET", "/a") is True
    assert server.idle.wait(5)
    assert transport.json("POST", "/b", {}) is True
    assert server.heads == ["GET /a HTTP/1.1", "POST /b HTTP/1.1"]


def test_a_request_that_may_have_had_an_effect_is_not_sent_twice(
    server: Server, transport: Transport
) -> None:
    transport.json("GET", "/a")
    server.handler = lambda connection, head: False
    with pytest.raises(DaemonAwayError, match="before its answer") as caught:
        transport.json("POST", "/jobs", {})
    assert caught.value.remedy == "studioq list shows whether it was done"
    assert server.heads.count("POST /jobs HTTP/1.1") == 1


def test_a_question_is_asked_again(server: Server, transport: Transport) -> None:
    transport.json("GET", "/a")

    def leave_once(_: socket.socket, __: bytes) -> bool:
        server.handler = answering(OK_ANSWER)
        return False

    server.handler = leave_once
    assert transport.json("GET", "/b") is True
    assert server.heads.count("GET /b HTTP/1.1") == 2


def test_an_error_comes_back_as_its_class_and_the_connection_stays(
    server: Server, transport: Transport
) -> None:
    error = SpecRefusedError("iters = 0: too few", field="iters", remedy="at least 1")
    body = json.dumps({"error": error.to_dict()}).encode()
    head = f"HTTP/1.1 422 No\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    server.handler = answering(head + body)
    for _ in range(2):
        with pytest.raises(SpecRefusedError, match="iters = 0") as caught:
            transport.json("POST", "/jobs", {})
        assert (caught.value.field, caught.value.remedy) == ("iters", "at least 1")
    assert server.connections == 1


def test_an_upload_that_is_refused_early_says_why(
    server: Server, transport: Transport, tmp_path: Path
) -> None:
    body = json.dumps({"error": {"code": "usage", "message": "too large"}}).encode()
    head = f"HTTP/1.1 413 No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    server.handler = answering(head + body, stay=False)
    file = tmp_path / "large"
    file.write_bytes(bytes(8 << 20))
    with (
        pytest.raises(StudioqError, match="too large"),
        file.open("rb") as content,
        transport.open("PUT", "/blobs/x", body=content, headers={"Content-Length": str(8 << 20)}),
    ):
        pass


def test_what_is_no_studioq_is_said_to_be_none(server: Server, transport: Transport) -> None:
    for answer, message in (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "is not JSON: b'hi'"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nhi", "answered 502 Bad: b'hi'"),
        (b"SSH-2.0\r\n\r\n", "is no studioq daemon"),
    ):
        server.handler = answering(answer, stay=False)
        with pytest.raises(StudioqError, match=message):
            transport.json("GET", "/")
        transport.close()


def test_silence_ends_after_the_timeout(server: Server) -> None:
    release = threading.Event()
    server.handler = lambda connection, _: release.wait() and False
    impatient = Transport(str(server.path), timeout=0.05)
    with pytest.raises(DaemonAwayError, match="no answer within"):
        impatient.json("GET", "/")
    release.set()


def test_nobody_there_is_the_daemon_away(tmp_path: Path) -> None:
    with pytest.raises(DaemonAwayError, match="no daemon answers at") as caught:
        Transport(str(tmp_path / "none"), timeout=1).json("GET", "/")
    assert caught.value.remedy == "studioq daemon start"


def test_a_start_is_tried_once_and_only_at_first(tmp_path: Path) -> None:
    started: list[Server] = []
    path = tmp_path / "s.sock"
    transport = Transport(str(path), timeout=5, start=lambda: started.append(Server(path)))
    assert transport.json("GET", "/") is True
    transport.close()
    started[0].close()
    path.unlink()
    with pytest.raises(DaemonAwayError):
        transport.json("GET", "/")
    assert len(started) == 1


def test_the_version_is_told_once(server: Server) -> None:
    told: list[str] = []
    transport = Transport(str(server.path), timeout=5, on_version=told.append)
    transport.json("GET", "/")
    transport.json("GET", "/")
    transport.close()
    assert told == ["9.9.9"]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_an_answer_in_chunks_is_read_to_its_end(server: Server, transport: Transport) -> None:
    body = b"3;note=x\r\n[1,\r\n2\r\n2]\r\n0\r\nTrailer: t\r\n\r\n"
    server.handler = answering(CHUNKED + body)
    assert [transport.json("GET", "/"), transport.json("GET", "/")] == [[1, 2], [1, 2]]
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntrue",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\ntrue",
        b"HTTP/1.1 200 OK\r\n\r\ntrue",
        b"HTTP/1.1 200 OK\r\nContent-Length",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101,
        b"HTTP/1.1 2000 OK\r\n\r\n",
        CHUNKED + b"5\r\ntrue",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"4\r\ntrue\r\n",
    ],
)
def test_an_answer_that_is_cut_short_or_malformed_is_no_answer(
    answer: bytes, server: Server, transport: Transport
) -> None:
    server.handler = answering(answer, stay=False)
    with pytest.raises(StudioqError, match="is no studioq daemon, or broke off"):
        transport.json("GET", "/")


def test_a_body_that_nobody_read_is_not_taken_for_the_next_answer(
    server: Server, transport: Transport
) -> None:
    with transport.open("GET", "/") as answer:
        assert answer.read(2) == b"tr"
    assert transport.json("GET", "/") is True
    assert server.connections == 2


def test_a_file_that_became_shorter_is_not_waited_for(
    server: Server, transport: Transport, tmp_path: Path
) -> None:
    file = tmp_path / "short"
    file.write_bytes(b"123")
    with (
        pytest.raises(UsageError, match="became shorter"),
        file.open("rb") as content,
        transport.open("PUT", "/blobs/x", body=content, headers={"Content-Length": "9"}),
    ):
        pass


def test_a_header_cannot_be_smuggled_in(server: Server, transport: Transport) -> None:
    with pytest.raises(UsageError, match="one line of ASCII"):
        transport.json("POST", "/jobs", {}, headers={"Studioq-Hub-Token": "a\r\nX: y"})
    assert server.heads == []


@pytest.mark.parametrize(
    ("data", "message"),
    [({"lr": float("nan")}, "infinite or not a number"), ({"prompt": "a\udc80"}, "not UTF-8")],
)
def test_what_json_cannot_say_is_refused_here(
    data: object, message: str, server: Server, transport: Transport
) -> None:
    with pytest.raises(UsageError, match=message):
        transport.json("POST", "/jobs", data)
    assert server.heads == []
