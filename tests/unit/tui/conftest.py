"""A real daemon's API on a real socket, and jobs in it in every state."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from daemon.client import Client
from daemon.ledger import attempts, jobs
from daemon.ledger.attempts import Claim, Ending, File
from daemon.ledger.states import AttemptState
from daemon.ledger.users import ensure_user
from daemon.specs import load_spec
from tests.unit.api.conftest import Stage, paths, stage

__all__ = ["Studio", "paths", "stage", "studio"]

NOW = 1_800_000_000.0


@dataclass(kw_only=True)
class Studio:
    """Jobs of several users, moved through their lives as the worker does it."""

    stage: Stage
    claims: dict[int, Claim] = field(default_factory=dict)

    def connect(self) -> Client:
        """Open a client of one's own, as the interface's threads do."""
        return Client(self.stage.paths.socket)

    def add(
        self, kind: str = "noop", *, uid: int | None = None, user: str = "ana", **options: Any
    ) -> int:
        """Queue a job; ``spec`` is completed with the kind's defaults."""
        spec = load_spec(kind, {"seed": 1, **options.pop("spec", {})}).model_dump(mode="json")
        with self.stage.ledger.writing() as session:
            person = ensure_user(session, uid=self.uid if uid is None else uid, name=user, now=NOW)
            new = jobs.NewJob(
                user_id=person.id, kind=kind, spec=spec, model=spec.get("model"), **options
            )
            return jobs.submit(session, new, actor=user, now=NOW).id

    @property
    def uid(self) -> int:
        """The uid of who runs the tests."""
        return self.stage.paths.home.stat().st_uid

    def start(self, number: int) -> Path:
        """Let a worker claim the job; return the attempt's folder."""
        with self.stage.ledger.writing() as session:
            claim = attempts.claim(session, number, worker="w", device="cpu", now=NOW + 1)
            assert claim is not None
        self.claims[number] = claim
        folder = self.stage.paths.attempt(number, claim.number)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def progress(self, number: int, done: int, total: int, eta: float | None = None) -> None:
        """Report how far the running job is."""
        with self.stage.ledger.writing() as session:
            attempts.report_progress(
                session, self.claims[number].fence, done=done, total=total, eta_seconds=eta
            )

    def metric(self, number: int, step: int, **values: float) -> None:
        """Report numbers of the running job."""
        rows = [(step, name, value, NOW + step) for name, value in values.items()]
        with self.stage.ledger.writing() as session:
            attempts.report_metrics(session, self.claims[number].fence, rows)

    def log(self, number: int, text: str) -> None:
        """Append to the job's log."""
        self._append(self.stage.paths.log(number), text)

    def text(self, number: int, text: str) -> None:
        """Append to the job's generated text."""
        self._append(self.stage.paths.text(number), text)

    @staticmethod
    def _append(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)

    def end(
        self,
        number: int,
        state: AttemptState = AttemptState.SUCCEEDED,
        *,
        files: dict[str, bytes] | None = None,
        kind: str = "text",
        error: dict[str, Any] | None = None,
    ) -> None:
        """End the running attempt; ``files`` become artifacts of ``kind``."""
        folder = self.stage.paths.attempt(number, self.claims[number].number)
        made = []
        for name, content in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            digest = sha256(content).hexdigest()
            made.append(File(name=name, kind=kind, bytes=len(content), sha256=digest))
        ending = Ending(state=state, files=tuple(made), error=error)
        with self.stage.ledger.writing() as session:
            attempts.end(session, self.claims.pop(number).fence, ending, now=NOW + 60)


@pytest.fixture
def studio(stage: Stage) -> Studio:
    """An empty studio, served."""
    return Studio(stage=stage)
