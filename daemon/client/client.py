"""``Client``: one method for every call of docs/api.md, and the few that combine them.

The rule it protects: a method sends what it was given and nothing else, so that every default is
filled in by the daemon and stands in the ledger. What only some calls need is imported there: a
submission's whole process counts in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote, urlencode

from daemon.client.follow import Part, Patience, follow, timed_out, until_ended
from daemon.client.transport import Transport
from daemon.client.trust import admit
from daemon.client.uploads import Uploads
from daemon.errors import StudioqError
from daemon.locate import Paths, find_daemon

if TYPE_CHECKING:
    from daemon.client import answers
    from daemon.client.download import Fetched
    from daemon.client.http1 import Answer

_BLOCK = 1 << 20
_MOST_PER_PART = 1 << 22


HUB_TOKEN = "Studioq-Hub-Token"  # noqa: S105 - a header's name


def _ignore(_: str) -> None:
    pass


class Client(Uploads):
    """A connection to the daemon that this process's environment names, or the one at ``socket``.

    Args:
        socket: path of the daemon's socket; None: see ``daemon.locate.find_daemon``.
        autostart: start a daemon when none answers the first call, where the address is the
            user's own home and its configuration allows it.
        timeout: seconds of silence after which the daemon counts as away.
        say: is told in one line what takes long (a start, an upload).
        on_version: is told the daemon's version by its first answer.

    Every method raises ``DaemonAwayError`` where no daemon answers, ``ConfigError`` where somebody
    else's may (``daemon.client.trust``), ``NotFoundError`` for a job
    that does not exist or is somebody else's, and the daemon's other errors as classes of
    ``daemon.errors``. One client serves one thread.
    """

    def __init__(
        self,
        socket: str | Path | None = None,
        *,
        autostart: bool = False,
        timeout: float = 60.0,
        say: Callable[[str], None] = _ignore,
        on_version: Callable[[str], None] | None = None,
    ) -> None:
        self.address = find_daemon(None if socket is None else str(socket))
        self._say = say
        self._transport = Transport(
            str(self.address.socket),
            timeout=timeout,
            on_version=on_version,
            start=self._start if autostart and self.address.autostart else None,
            admit=partial(admit, self.address),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The client can be used again."""
        self._transport.close()

    @property
    def version(self) -> str | None:
        """The daemon's version, once it has answered."""
        return self._transport.version

    # Submitting

    def submit(
        self,
        kind: str,
        spec: Mapping[str, Any],
        hub_token: str | None = None,
        **request: Unpack[answers.Request],
    ) -> answers.Accepted:
        """Queue a job of ``kind`` and return its number, its state, and what is to be noted.

        ``Client.schema`` describes the specs; ``request`` is what the queue needs to know.
        ``hub_token`` is used to fetch this job's model, and neither stored nor logged.

        Raises:
            SpecRefusedError: names the field, the value and what is allowed.
        """
        body = {"kind": kind, "spec": dict(spec), **request}
        headers = {HUB_TOKEN: hub_token} if hub_token else {}
        answer: answers.Accepted = self._transport.json("POST", "/jobs", body, headers=headers)
        return answer

    def repeat(self, number: int) -> answers.Accepted:
        """Queue the recorded spec of job ``number`` again; the answer is the new job's."""
        answer: answers.Accepted = self._transport.json("POST", f"/jobs/{number}/repeat")
        return answer

    # Reading

    def jobs(
        self,
        *,
        everything: bool = False,
        user: str | None = None,
        state: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        since: int | None = None,
    ) -> answers.JobList:
        """Return waiting, running and the latest ended jobs, or ``everything``, newest first.

        ``since``: only what changed after this revision (``JobList["revision"]``).
        """
        filters = {
            "all": 1 if everything else None,
            "user": user,
            "state": state,
            "kind": kind,
            "limit": limit,
            "since": since,
        }
        answer: answers.JobList = self._get("/jobs", filters)
        return answer

    def job(self, number: int) -> answers.Job:
        """Return everything about one job."""
        answer: answers.Job = self._get(f"/jobs/{number}")
        return answer

    def poll(self, number: int, seconds: float) -> answers.Ending:
        """Return how a job stands when it has ended, or after ``seconds`` at the latest."""
        answer: answers.Ending = self._get(
            f"/jobs/{number}/wait", {"timeout": seconds}, patience=seconds
        )
        return answer

    def wait(self, number: int, timeout: float | None = None) -> answers.Ending:
        """Wait until a job has ended, through restarts of the daemon, and return its outcome.

        Raises:
            WaitTimedOutError: it had not after ``timeout`` seconds; it goes on.
        """
        ending = until_ended(
            lambda seconds: self.poll(number, seconds),
            lambda answer: answer["ended"],
            patience=Patience(seconds=timeout),
        )
        if ending is None:
            raise timed_out(number)
        return ending

    def metrics(self, number: int, after: int | None = None) -> list[answers.Metric]:
        """Return a job's measurements, or those that came after the one with the id ``after``."""
        answer: list[answers.Metric] = self._get(f"/jobs/{number}/metrics", {"after": after})[
            "metrics"
        ]
        return answer

    def events(self, number: int) -> list[answers.JobEvent]:
        """Return a job's history: who did what to it when."""
        answer: list[answers.JobEvent] = self._get(f"/jobs/{number}/events")["events"]
        return answer

    def artifacts(self, number: int) -> list[answers.Artifact]:
        """Return the files that a job has made, checkpoints included."""
        answer: list[answers.Artifact] = self._get(f"/jobs/{number}/artifacts")["artifacts"]
        return answer

    def read_log(
        self, number: int, offset: int = 0, wait: float = 0.0, most: int = _MOST_PER_PART
    ) -> Part:
        """Return up to ``most`` bytes of a job's log from byte ``offset``; wait for the first.

        A negative ``offset`` asks for the last bytes; ``Part.size`` says how long the log is.
        """
        return self._part(f"/jobs/{number}/log", offset, wait, most)

    def read_text(self, number: int, offset: int = 0, wait: float = 0.0) -> Part:
        """Return a job's generated text from byte ``offset``, as ``read_log`` does."""
        return self._part(f"/jobs/{number}/text", offset, wait)

    def follow_log(
        self, number: int, offset: int = 0, timeout: float | None = None
    ) -> Iterator[str]:
        """Yield a job's log as it is written, until the job ends (or WaitTimedOutError)."""
        read = lambda start, wait: self.read_log(number, start, wait)  # noqa: E731
        return follow(read, offset=offset, patience=Patience(seconds=timeout), number=number)

    def follow_text(
        self, number: int, offset: int = 0, timeout: float | None = None
    ) -> Iterator[str]:
        """Yield a job's generated text as it is made, until the job ends (or WaitTimedOutError)."""
        read = lambda start, wait: self.read_text(number, start, wait)  # noqa: E731
        return follow(read, offset=offset, patience=Patience(seconds=timeout), number=number)

    # Fetching

    def blocks(self, number: int, name: str) -> Iterator[bytes]:
        """Yield an artifact's bytes."""
        with self._transport.open("GET", f"/jobs/{number}/artifacts/{quote(name)}") as response:
            while block := response.read(_BLOCK):
                yield block

    def download(self, number: int, name: str, to: str | Path) -> Path:
        """Bring one artifact to the path ``to``, which must not exist, and check its hash."""
        from daemon.client import download

        (artifact,) = download.choose(self.artifacts(number), [name], everything=True)[:1]
        return download.download(self, number, artifact, Path(to)).path

    def fetch(
        self,
        number: int,
        names: Sequence[str] = (),
        *,
        to: str | Path | None = None,
        everything: bool = False,
    ) -> list[Fetched]:
        """Bring a job's results into the folder ``to`` (``./job-N``).

        All but the checkpoints, or ``everything``, or what ``names`` mean.
        A name means the artifact of that name and everything below a folder of that name.

        Raises:
            FileDiffersError: a file there has the name and other content; nothing was fetched.
            ConflictError: the job has no results.
        """
        from daemon.client import download

        found = self.artifacts(number)
        chosen = download.choose(found, names, everything=everything)
        if not chosen:
            raise download.nothing_to_fetch(self.job(number), found)
        return download.fetch(self, number, chosen, Path(to or f"job-{number}"))

    def preview(self, number: int, to: str | Path | None = None) -> Path:
        """Bring the latest preview of a running diffusion to the path ``to``; return the path.

        What is there (``./job-N/preview.png``) is replaced: a preview is no result.

        Raises:
            ConflictError: the job does not run, draws none, or has drawn none yet.
        """
        from daemon.client import download

        with self._transport.open("GET", f"/jobs/{number}/preview") as response:
            blocks = iter(lambda: response.read(_BLOCK), b"")
            return download.replace(Path(to or f"job-{number}/preview.png"), blocks)

    # Changing

    def cancel(self, number: int) -> answers.JobState:
        """End a job; a running one ends at its next safe point."""
        return self._act(number, "cancel")

    def finish(self, number: int) -> answers.JobState:
        """End a running job now, as succeeded, with what it has; with nothing it is cancelled."""
        return self._act(number, "finish")

    def retry(self, number: int) -> answers.JobState:
        """Queue an ended job again, under its number."""
        return self._act(number, "retry")

    def hold(self, number: int) -> answers.JobState:
        """Keep a job from starting."""
        return self._act(number, "hold")

    def release(self, number: int) -> answers.JobState:
        """Let a held job start."""
        return self._act(number, "release")

    def priority(self, number: int, level: str) -> answers.JobState:
        """Give a job the priority ``low``, ``normal`` or ``high``."""
        return self._act(number, "priority", {"level": level})

    def drain(self) -> bool:
        """Start no more jobs (admin); return whether the queue drains now."""
        return bool(self._transport.json("POST", "/drain")["draining"])

    def resume(self) -> bool:
        """Start jobs again (admin); return whether the queue drains now."""
        return bool(self._transport.json("POST", "/resume")["draining"])

    def shutdown(self, *, worker: bool = True, drain: bool = False) -> None:
        """End the daemon (admin), and with ``worker`` the worker, engine and Redis it started.

        A running job writes a checkpoint and goes on at the next start; with ``drain`` it ends
        first.
        """
        self._transport.json("POST", "/shutdown", {"worker": worker, "drain": drain})

    # The daemon

    def status(self) -> answers.Status:
        """Return the state of the daemon, Redis, worker and engine."""
        answer: answers.Status = self._get("/status")
        return answer

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a request and of every kind's spec."""
        answer: dict[str, Any] = self._get("/schema")
        return answer

    def models(self) -> answers.ModelList:
        """Return the models that a spec may name, and the model roots."""
        answer: answers.ModelList = self._get("/models")
        return answer

    def model(self, name: str) -> answers.ModelPage:
        """Return one model with its files, and what it was converted from if it was."""
        answer: answers.ModelPage = self._get(f"/models/{quote(name)}")
        return answer

    def remove_model(self, name: str) -> answers.Removed:
        """Remove a model that no job needs; users their own, admins any of a writable root."""
        answer: answers.Removed = self._transport.json("DELETE", f"/models/{quote(name)}")
        return answer

    def usage(self, since: float | None = None) -> list[answers.UserShare]:
        """Return the use of the GPU by user, since a time in seconds since the epoch."""
        answer: list[answers.UserShare] = self._get("/usage", {"since": since})["users"]
        return answer

    # Within

    def _get(
        self, path: str, query: Mapping[str, object] | None = None, *, patience: float = 0.0
    ) -> Any:
        return self._transport.json("GET", path + _query(query or {}), patience=patience)

    def _act(self, number: int, verb: str, body: object = None) -> answers.JobState:
        answer: answers.JobState = self._transport.json("POST", f"/jobs/{number}/{verb}", body)
        return answer

    def _start(self) -> None:
        from daemon.autostart import start_daemon

        start_daemon(Paths.default(), say=self._say)

    def _part(self, path: str, offset: int, wait: float, most: int = _MOST_PER_PART) -> Part:
        target = path + _query({"wait": wait or None})
        wanted = f"{offset}-{offset + most - 1}" if offset >= 0 else str(offset)
        headers = {"Range": f"bytes={wanted}"}
        with self._transport.open(
            "GET", target, headers=headers, patience=wait, accept=416
        ) as answer:
            if answer.status != 416:
                return _read_part(answer, offset, most)
            answer.read()
        if offset == 0:
            raise StudioqError(
                f"the daemon has no byte 0 of {path}", remedy="studioq daemon restart"
            )
        return self._part(path, 0, wait, most)  # begun anew by a new attempt


def _read_part(answer: Answer, offset: int, most: int) -> Part:
    """Read what was asked for; without ``Content-Range`` there was nothing behind ``offset``."""
    place, _, total = answer.headers.get("content-range", "").removeprefix("bytes ").partition("/")
    first = place.partition("-")[0]
    start = int(first) if first.isdecimal() else max(0, offset)
    size = int(total) if total.isdecimal() else start
    data = answer.read(most)
    state = answer.headers.get("studioq-job-state", "")
    return Part(data=data, offset=start + len(data), state=state, size=size)


def _query(values: Mapping[str, object]) -> str:
    given = {key: value for key, value in values.items() if value is not None}
    return "?" + urlencode(given) if given else ""
