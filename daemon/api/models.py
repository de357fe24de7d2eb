"""Routes of the models: what there is, what each one is, and removing one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from sqlalchemy.orm import Session

from daemon.api.answers import Json
from daemon.api.service import Asker, Service, Services
from daemon.conversions import made_from
from daemon.errors import NotFoundError
from daemon.image_facts import ImageFacts
from daemon.ledger.downloads import downloads
from daemon.ledger.states import DownloadState
from daemon.ledger.workers import latest_worker
from daemon.model_facts import facts_of
from daemon.model_memory import Memory, find_memory
from daemon.model_removal import find_removal, forget_failed, held_bytes, remove
from daemon.models import DEMO_MODEL, ModelEntry, entry_at
from daemon.regular_files import read_regular

router = APIRouter()

# What a conversion writes beside the model that it has made, and which of that is told.
CONVERSION = "conversion.json"
_TOLD = ("job", "source", "source_fingerprint")
_MOST_CONVERSION = 2**20

_SHOWN = {
    DownloadState.PENDING: "downloading",
    DownloadState.RUNNING: "downloading",
    DownloadState.FAILED: "failed",
}


@router.get("/models")
def list_models(service: Services) -> Json:
    """Answer the models that a spec may name."""
    memory = _memory(service)
    models = [_here(entry, memory) for entry in service.models.list()]
    known = {entry["name"] for entry in models}
    models += [entry for entry in service.read(_fetched) if entry["name"] not in known]
    if DEMO_MODEL not in {entry["name"] for entry in models}:
        models.append(_to_come(DEMO_MODEL, "available"))
    return Json(
        {
            "models": models,
            "roots": [str(root) for root in service.models.roots],
            "memory": {"limit": memory.limit, "source": memory.source},
        }
    )


@router.get("/models/{name:path}")
def show_model(name: str, service: Services) -> Json:
    """Answer one model with its files and how it came about."""
    path = service.models.find(name)
    if path is not None:
        entry = entry_at(name, path)
        files = [{"name": file.place, "bytes": file.bytes} for file in entry.files]
        here = _here(entry, _memory(service))
        return Json(here | {"files": files, "conversion": _conversion(entry)})
    coming = {entry["name"]: entry for entry in service.read(_fetched)}
    if name not in coming and name == DEMO_MODEL:
        coming[name] = _to_come(DEMO_MODEL, "available")
    if name not in coming:
        raise NotFoundError(f"there is no model {name[:80]!r} here", remedy="studioq models list")
    return Json(coming[name] | {"files": [], "conversion": None})


@router.delete("/models/{name:path}")
def remove_model(name: str, service: Services, person: Asker) -> Json:
    """Remove a model that no job needs."""
    removed: list[Path] = []
    held, job = 0, None
    if not forget_failed(service.models, name, service.writer):
        removal = find_removal(service.models, name, person)
        held, job = held_bytes(removal), made_from(removal.paths[0]).job
        remove(removal, models=service.models, writer=service.writer, person=person)
        removed = list(removal.paths)
    paths = [str(path) for path in removed]
    return Json({"name": name, "removed": paths, "held_bytes": held, "job": job})


def _memory(service: Service) -> Memory:
    worker = service.processes.status()["worker"]["pid"]
    engine = service.read(lambda session: _engine(session, worker))
    return find_memory(engine, share=service.config.model_budget)


def _engine(session: Session, pid: int | None) -> dict[str, Any]:
    """Return what the living worker says of its engine."""
    worker = latest_worker(session)
    lives = worker is not None and worker.ended_at is None and worker.pid == pid
    return worker.engine if worker is not None and lives else {}


def _here(entry: ModelEntry, memory: Memory) -> dict[str, Any]:
    """Return a model that is there, and why no job can use it if so."""
    facts = facts_of(entry)
    needed = memory.needed(entry.format, facts)
    count, problem = facts.count, facts.problem
    return {
        "name": entry.name,
        "path": str(entry.path),
        "format": entry.format,
        "bytes": entry.bytes,
        "state": "ready" if problem is None else "unusable",
        "error": problem.message if problem is not None else None,
        "remedy": problem.remedy if problem is not None else None,
        "architecture": facts.architecture,
        "parameters": count.parameters if count is not None else None,
        "bits": round(count.bits, 2) if count is not None else None,
        "mixed_bits": count.mixed if count is not None else None,
        "memory_bytes": needed,
        "fits": memory.fits(needed),
        **asdict(facts.image),
    }


def _conversion(entry: ModelEntry) -> dict[str, Any] | None:
    """Return from what a job has made the model; None of one that none has made."""
    made = next((file for file in entry.files if file.place == CONVERSION), None)
    if made is None or made.bytes > _MOST_CONVERSION:
        return None
    try:
        found = json.loads(read_regular(entry.path / CONVERSION))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {key: found[key] for key in _TOLD if isinstance(found.get(key), str | int)}


def _fetched(session: Session) -> list[dict[str, Any]]:
    """Return the models that are being fetched, or could not be."""
    return [
        _to_come(row.model, _SHOWN[DownloadState(row.state)], done=row.done_bytes, error=row.error)
        for row in downloads(session)
        if row.state in _SHOWN
    ]


def _to_come(
    name: str, state: str, *, done: int | None = None, error: dict[str, Any] | None = None
) -> dict[str, Any]:
    told = error or {}
    return {
        "name": name,
        "path": None,
        "format": None,
        "bytes": done,
        "state": state,
        "error": told.get("message"),
        "remedy": told.get("remedy"),
        "architecture": None,
        "parameters": None,
        "bits": None,
        "mixed_bits": None,
        "memory_bytes": None,
        "fits": None,
        **asdict(ImageFacts()),
    }
