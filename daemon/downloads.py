"""Fetching models while jobs wait for them: one helper process for each model.

The rule it protects: a download exists for jobs. It begins when the first one waits, its progress
is those jobs' reason, and it ends with the last of them. A person's token lives in memory until its
helper has it.
"""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from daemon.errors import ModelError
from daemon.ledger import downloads as table
from daemon.ledger.jobs import queued_among
from daemon.ledger.queries import waits_for_model
from daemon.ledger.store import Ledger
from daemon.ledger.writer import Writer
from daemon.logs import note
from daemon.staging import sweep

log = logging.getLogger(__name__)

# How many models are fetched at once, how many tokens are kept, seconds between two progress rows.
MOST_AT_ONCE = 2
MOST_TOKENS = 100
REPORT_EVERY = 0.5

Announce = Callable[..., None]
Error = Mapping[str, Any]


@dataclass(kw_only=True)
class _Helper:
    process: subprocess.Popen[str]
    cancelled: bool = False
    reported_at: float = 0.0


@dataclass(kw_only=True)
class Downloads:
    """Runs the helpers. ``look`` may be called from any thread and returns at once."""

    ledger: Ledger
    writer: Writer
    root: Path
    announce: Announce
    clock: Callable[[], float] = time.time
    _wishes: queue.SimpleQueue[bool] = field(default_factory=queue.SimpleQueue, init=False)
    _tokens: dict[str, tuple[int, str]] = field(default_factory=dict, init=False)
    _helpers: dict[str, _Helper] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Take up what an earlier daemon was fetching."""
        self.writer.write(table.restart_downloads)
        self._thread = threading.Thread(target=self._run, name="downloads", daemon=True)
        self._thread.start()
        self.look()

    def remember(self, model: str, token: str, *, owner: int) -> None:
        """Keep the token of the user ``owner`` (a uid) for the helper that will fetch ``model``.

        Called in the writer. Another user's token for it stays, as long as a job waits.
        """
        with self._lock:
            kept = self._tokens.get(model)
            if kept[0] == owner if kept is not None else len(self._tokens) < MOST_TOKENS:
                self._tokens[model] = owner, token

    def look(self) -> None:
        """Look soon for what is to be fetched, and for what nobody waits for any more."""
        self._wishes.put(True)

    def close(self) -> None:
        """End every helper; the next daemon begins their models again."""
        self._wishes.put(False)
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            helpers = list(self._helpers.values())
        for helper in helpers:
            _end(helper)

    def _run(self) -> None:
        sweep(self.root)
        while self._wishes.get():
            try:
                self._cancel_unwanted()
                self._forget_unwanted()
                self._start_pending()
            except Exception:
                log.exception("action=downloads_failed")

    def _cancel_unwanted(self) -> None:
        with self._lock:
            running = dict(self._helpers)
        for model, helper in running.items():
            with self.ledger.reading() as session:
                wanted = waits_for_model(session, model)
            if not wanted and not helper.cancelled:
                note(log, "download_cancelled", model=model)
                helper.cancelled = True
                _end(helper)

    def _forget_unwanted(self) -> None:
        """Forget tokens for which nothing waits. In the writer, as submissions bring them there."""
        with self._lock:
            kept = list(self._tokens)
        with self.ledger.reading() as session:
            unwanted = [model for model in kept if not waits_for_model(session, model)]
        if unwanted:
            self.writer.write(partial(self._forget, models=unwanted))

    def _forget(self, session: Session, *, models: Iterable[str]) -> None:
        for model in models:
            if not waits_for_model(session, model):
                with self._lock:
                    self._tokens.pop(model, None)

    def _start_pending(self) -> None:
        with self.ledger.reading() as session:
            pending = [
                model
                for model in table.pending_downloads(session)
                if waits_for_model(session, model)
            ]
        for model in pending:
            with self._lock:
                full = len(self._helpers) >= MOST_AT_ONCE
                known = model in self._helpers
                kept = None if full or known else self._tokens.pop(model, None)
            if not (full or known):
                self._launch(model, kept[1] if kept is not None else None)

    def _launch(self, model: str, token: str | None) -> None:
        note(log, "download_started", model=model, with_token=token is not None)
        self.writer.write(partial(_report, model=model, done=0, total=None, now=self.clock()))
        process = subprocess.Popen(
            [sys.executable, "-c", "from daemon.fetch import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
        )
        helper = _Helper(process=process)
        with self._lock:
            self._helpers[model] = helper
        request = {"model": model, "root": str(self.root), "token": token}
        thread = threading.Thread(
            target=self._follow, args=(model, helper, request), name="download", daemon=True
        )
        thread.start()

    def _follow(self, model: str, helper: _Helper, request: Mapping[str, Any]) -> None:
        """Hand the helper its request, record what it reports, and its end."""
        error: ModelError | None = _ended_early(model, None)
        try:
            with helper.process:
                error = self._listen(model, helper, request)
        except Exception:
            log.exception("action=download_failed model=%s", model)
        with self._lock:
            del self._helpers[model]
        self._record_end(model, error.to_dict() if error is not None else None)
        self.look()

    def _listen(self, model: str, helper: _Helper, request: Mapping[str, Any]) -> ModelError | None:
        """Return what kept the model away, None if it is there."""
        process = helper.process
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        with process.stdin as stdin:
            stdin.write(json.dumps(request) + "\n")
        error: ModelError | None = None
        succeeded = False
        for line in process.stdout:
            message = json.loads(line)
            succeeded = succeeded or message.get("done") is True
            if "error" in message:
                error = _model_error(message["error"])
            elif "bytes" in message:
                self._report_progress(model, helper, message)
        status = process.wait()
        return error if error is not None or succeeded else _ended_early(model, status)

    def _report_progress(self, model: str, helper: _Helper, message: Mapping[str, Any]) -> None:
        now = self.clock()
        if abs(now - helper.reported_at) < REPORT_EVERY:
            return
        helper.reported_at = now
        done, total = message["bytes"], message["total"]
        self.writer.write(partial(_report, model=model, done=done, total=total, now=now))

    def _record_end(self, model: str, error: Error | None) -> None:
        reason = {} if error is None else {"error": error["message"]}
        note(log, "download_ended", logging.WARNING if reason else logging.INFO, **reason, of=model)

        def change(session: Session) -> list[tuple[int, int]]:
            if error is not None and not waits_for_model(session, model):
                table.forget_download(session, model)
                return []
            moved = table.end_download(session, model, error=error, now=self.clock())
            return queued_among(session, moved)

        self.announce(*self.writer.write(change))


def _report(session: Session, *, model: str, done: int, total: int | None, now: float) -> None:
    table.report_download(session, model, done=done, total=total, now=now)


def _model_error(data: Mapping[str, Any]) -> ModelError:
    error = ModelError(str(data["message"]), remedy=data.get("remedy"))
    error.code = str(data["code"])
    return error


def _ended_early(model: str, status: int | None) -> ModelError:
    return ModelError(
        f"the download of {model} broke off (its process ended with status {status})",
        remedy="studioq retry N tries again; the daemon's log may say more",
    )


def _end(helper: _Helper) -> None:
    """Ask the helper to end; it ends what it has started and removes what it has staged."""
    helper.process.terminate()
