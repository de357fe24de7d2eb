"""``studioq demo``: make a picture, train an adapter, ask without and with it, show all of it.

The rule it protects: the demo is a user like any other. It has a home and a daemon of its own, does
everything through the client, and ends all that it started, also when it is interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon import demo_rows
from daemon.autostart import start_daemon
from daemon.cli.narration import complain, narrate
from daemon.cli.picture import show_picture
from daemon.cli.stopping import stop_daemon
from daemon.cli.units import number as four_digits
from daemon.cli.watch import View, watch
from daemon.client import ENDED, Client
from daemon.errors import ConflictError, DaemonAwayError, ExitCode, JobError, StudioqError
from daemon.locate import Paths, default_home, default_runtime

SEED = 20

_MODEL = "smollm2"
PICTURE = {"prompt": "a red circle left of a blue square", "seed": 1}


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """The numbers of the demo's four jobs."""

    picture: int
    training: int
    before: int
    after: int

    def texts(self) -> tuple[int, int, int]:
        """Return those of the language model in the order in which they are watched."""
        return self.training, self.before, self.after


def run_demo(home: str | None) -> int:
    """Run the demo in ``home``, or in its own folder; return the exit code."""
    with _interruptible():
        try:
            paths = demo_paths(home)
            with demo_daemon(paths) as client:
                return _demonstrate(client, paths)
        except KeyboardInterrupt:
            narrate("interrupted; the demo's processes have ended")
            return int(ExitCode.INTERRUPTED)
        except StudioqError as error:
            complain(f"the demo failed: {error.message}", error.remedy)
            return int(ExitCode.JOB_FAILED)


def demo_paths(home: str | None) -> Paths:
    """Return the demo's own home, with the models of the user's home.

    The home is a folder of the platform's cache, so that the demo neither disturbs nor needs the
    user's own daemon, and its results stay. The model root is the user's own: what the demo
    downloads once is there for all later work, too.
    """
    folder = Path(home).expanduser().absolute() if home else _cache() / "demo"
    named = os.environ.get("STUDIOQ_RUNTIME")
    runtime = Path(named).absolute() / "demo" if named else default_runtime(folder)
    paths = Paths(home=folder, runtime=runtime)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder != default_home() and not os.path.lexists(paths.models):
        own = Paths.default().create_models()  # which may not have been there yet
        paths.models.symlink_to(own, target_is_directory=True)
    return paths


def _cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("studioq", appauthor=False))


@contextmanager
def demo_daemon(paths: Paths) -> Iterator[Client]:
    """Run a daemon for the demo's home as long as the block; what earlier demos left is cancelled.

    Raises:
        ConflictError: another demo runs in this home.
    """
    if start_daemon(paths, say=narrate) is None:
        raise ConflictError(
            f"a daemon runs in {paths.home} already: another demo",
            remedy="wait for its end, or name another folder with --home DIR",
        )
    with Client(paths.socket) as client:
        try:
            _cancel_all(client)
            yield client
        finally:
            _end(client, paths)


def _cancel_all(client: Client) -> None:
    for job in client.jobs(limit=1000)["jobs"]:
        if job["state"] not in ENDED:
            client.cancel(job["id"])


def _end(client: Client, paths: Paths) -> None:
    """Cancel what still runs and end all the demo's processes, whatever the user presses."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    narrate("stopping daemon, worker, engine and Redis")
    client.close()
    with suppress(DaemonAwayError):
        _cancel_all(client)
        stop_daemon(client, worker=True)
        return
    # The daemon died and its worker may live: a new one adopts it, and ends it with itself.
    start_daemon(paths, say=narrate)
    stop_daemon(client, worker=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat an ended terminal or a polite kill like ctrl-C, so that the cleaning up happens."""
    before = {name: signal.signal(name, _interrupt) for name in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _demonstrate(client: Client, paths: Paths) -> int:
    jobs = submit_jobs(client, demo_rows.write_demo_data(paths.home / "data", SEED))
    narrate(
        f"queued: picture {jobs.picture}, training {jobs.training}, then the question without and "
        "with its adapter"
    )
    _watch(client, [jobs.picture])
    _show_picture(_fetched(client, paths, jobs.picture))
    _watch(client, jobs.texts())
    answers = [answer_of(client, number) for number in (jobs.before, jobs.after)]
    files = _fetched(client, paths, jobs.training)
    for text in report(client.metrics(jobs.training), answers, files):
        sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return int(check(*answers))


def _watch(client: Client, numbers: Sequence[int]) -> None:
    """Show the jobs until they have ended.

    Raises:
        JobError: one of them did not succeed.
    """
    ended = watch(client, numbers, View.of_terminal())
    failed = [job for job in ended if job["state"] != "succeeded"]
    if failed:
        raise _failure(failed)


def _fetched(client: Client, paths: Paths, number: int) -> list[Path]:
    files = client.fetch(number, to=paths.home / "results" / f"job-{number}")
    return [file.path for file in files]


def _show_picture(files: Sequence[Path]) -> None:
    """Say what was asked for and where the picture is; show it where the terminal can."""
    for path in files:
        sys.stdout.write(f"\n{PICTURE['prompt']}\n  {path.name:<16}  {path}\n")
        sys.stdout.flush()
        show_picture(path, sys.stdout)


def submit_jobs(client: Client, data: Path) -> Jobs:
    """Queue a picture, the training and two questions, the second of which waits for it."""
    picture = client.submit("diffuse", PICTURE, name="picture")["id"]
    spec = {**demo_rows.TRAINING, "model": _MODEL, "data": client.training_data(data)}
    training = client.submit("train", spec, name="SQL adapter")["id"]
    question = {**demo_rows.INFERENCE, "model": _MODEL, "prompt": demo_rows.QUESTION}
    before = client.submit("infer", question, name="without adapter")["id"]
    adapted = {**question, "adapter": f"job:{training}"}
    after = client.submit("infer", adapted, name="with adapter")["id"]
    return Jobs(picture=picture, training=training, before=before, after=after)


def _failure(failed: Sequence[Any]) -> StudioqError:
    job = failed[0]
    error = job["error"] or {}
    reason = error.get("message") or job["reason"] or "no reason was recorded"
    return JobError(
        f"job {job['id']} ({job['name']}) {job['state']}: {reason}",
        remedy=error.get("remedy") or "studioq doctor",
    )


def answer_of(client: Client, number: int) -> str:
    """Return the text that an inference made."""
    return "".join(client.follow_text(number)).strip()


def report(metrics: Sequence[Any], answers: Sequence[str], files: Sequence[Path]) -> Iterator[str]:
    """Yield the lines of the result: losses, question and answers, files."""
    yield ""
    for name, title in (("train_loss", "training loss"), ("val_loss", "validation loss")):
        yield f"{title:<16}  {_first_and_last(metrics, name)}"
    yield ""
    yield from demo_rows.QUESTION.splitlines()
    for title, text in zip(("without adapter", "with adapter"), answers, strict=True):
        yield f"  {title:<16}  {' / '.join(text.splitlines()) or '(nothing)'}"
    yield ""
    yield from (f"{path.name:<24}  {path}" for path in files)


def _first_and_last(metrics: Sequence[Any], name: str) -> str:
    found = [metric for metric in metrics if metric["name"] == name]
    if not found:
        return "not measured"
    first, last = found[0], found[-1]
    return (
        f"{four_digits(first['value'])} -> {four_digits(last['value'])}"
        f"  (iteration {first['step']} to {last['step']})"
    )


def check(before: str, after: str) -> ExitCode:
    """Return whether the adapter did what the demo says it does; say so where it did not."""
    if is_query(after) and not is_query(before):
        return ExitCode.OK
    complain(
        "the demo failed: with the adapter the answer should be SELECT … FROM …, without it not",
        "studioq doctor",
    )
    return ExitCode.JOB_FAILED


def is_query(answer: str) -> bool:
    """Return whether a text is a query of the demo's grammar."""
    return answer.startswith("SELECT") and "FROM" in answer
