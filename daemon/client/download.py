"""Artifacts on their way to the user's disk.

The rule it protects: a file of the user's is never overwritten and nothing is written outside the
folder that was named, whatever names the daemon sends. A file appears whole and checked, or not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from daemon.client.inputs import hash_file
from daemon.durable import sync_file
from daemon.errors import ConflictError, FileDiffersError, NotFoundError, StudioqError
from daemon.wording import counted

if TYPE_CHECKING:
    from daemon.client.answers import Artifact, Job

_CHECKPOINT_KINDS = frozenset({"checkpoint", "state"})


class Source(Protocol):
    """Gives an artifact's bytes in blocks."""

    def blocks(self, number: int, name: str) -> Iterable[bytes]:
        """Yield the content of artifact ``name`` of job ``number``."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file that now lies on the user's disk; ``written`` is false where it lay there already."""

    name: str
    path: Path
    bytes: int
    sha256: str
    written: bool


def is_final(artifact: Artifact) -> bool:
    """Return whether an artifact is a result, and not one of the checkpoints on the way to it."""
    return artifact["kind"] not in _CHECKPOINT_KINDS and not artifact["name"].startswith(
        "checkpoints/"
    )


def choose(
    artifacts: Sequence[Artifact], names: Sequence[str], *, everything: bool
) -> list[Artifact]:
    """Return the artifacts to fetch: the results, everything, or those that ``names`` mean.

    A name means the artifact of that name and all below the folder of that name. Of several
    attempts' files of one name the last counts.

    Raises:
        NotFoundError: a name means none.
    """
    latest = {artifact["name"]: artifact for artifact in artifacts}
    if not names:
        return [found for found in latest.values() if everything or is_final(found)]
    chosen: dict[str, Artifact] = {}
    for name in names:
        meant = {key: found for key, found in latest.items() if _means(name, key)}
        if not meant:
            raise NotFoundError(
                f"there is no artifact {name!r}",
                remedy=f"there are: {', '.join(sorted(latest)) or 'none'}",
            )
        chosen.update(meant)
    return list(chosen.values())


def _means(name: str, artifact: str) -> bool:
    return artifact == name or artifact.startswith(name.rstrip("/") + "/")


def place(folder: Path, name: str) -> Path:
    """Return where artifact ``name`` goes inside ``folder``.

    Raises:
        StudioqError: the name would leave the folder, or no file system should see it.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or not name.isprintable() or "\\" in name:
        raise StudioqError(f"the daemon sent an artifact name that is not safe: {name!r}")
    path = folder.joinpath(*parts)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise StudioqError(
            f"{path.parent} is a link that leads out of {folder}",
            remedy="remove the link, or use --to",
        )
    return path


def fetch(
    source: Source, number: int, artifacts: Sequence[Artifact], folder: Path
) -> list[Fetched]:
    """Bring ``artifacts`` into ``folder``; those that lie there with the same content stay.

    Raises:
        FileDiffersError: a file of that name has other content; nothing was fetched.
        StudioqError: a name is not safe, or what came has not the promised hash.
    """
    targets = [(artifact, place(folder, artifact["name"])) for artifact in artifacts]
    there = {path for artifact, path in targets if _is_there(artifact, path)}
    return [
        _fetched(artifact, path) if path in there else download(source, number, artifact, path)
        for artifact, path in targets
    ]


def _is_there(artifact: Artifact, path: Path) -> bool:
    if not os.path.lexists(path):
        return False
    if path.is_file() and hash_file(path) == artifact["sha256"]:
        return True
    raise FileDiffersError(
        f"{path} differs from the job's {artifact['name']}; nothing was fetched",
        remedy="move it away, or name another folder with --to DIR",
    )


def download(source: Source, number: int, artifact: Artifact, path: Path) -> Fetched:
    """Stream one artifact to ``path`` by way of a file beside it, and check its hash.

    Raises:
        FileDiffersError: somebody made a file of that name meanwhile.
        StudioqError: the content has not the hash that the ledger holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        found = _write(partial, source.blocks(number, artifact["name"]))
        if found != artifact["sha256"]:
            raise StudioqError(
                f"{artifact['name']} of job {number} arrived with SHA-256 {found}, "
                f"but the ledger holds {artifact['sha256']}",
                remedy="fetch it again; if it stays so, the daemon's disk has damaged the file",
            )
        _publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return _fetched(artifact, path, written=True)


def _write(path: Path, blocks: Iterable[bytes]) -> str:
    digest = sha256()
    with path.open("xb") as file:
        for block in blocks:
            digest.update(block)
            file.write(block)
        sync_file(file)
    return digest.hexdigest()


def _publish(partial: Path, path: Path) -> None:
    """Give the finished file its name, unless another file has it by now."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise FileDiffersError(f"{path} was made by somebody else meanwhile") from None
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileDiffersError(f"{path} was made by somebody else meanwhile") from None
        partial.rename(path)


def replace(path: Path, blocks: Iterable[bytes]) -> Path:
    """Write a file that may take the place of another, whole or not at all; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        _write(partial, blocks)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _beside(path: Path) -> Path:
    """Return a name in the same folder that nothing has."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")


def _fetched(artifact: Artifact, path: Path, *, written: bool = False) -> Fetched:
    return Fetched(
        name=artifact["name"],
        path=path,
        bytes=artifact["bytes"],
        sha256=artifact["sha256"],
        written=written,
    )


def nothing_to_fetch(job: Job, artifacts: Sequence[Artifact]) -> ConflictError:
    """Return the error of a job that has no results: why, and where there may be something."""
    number, state = job["id"], job["state"]
    if artifacts:
        return ConflictError(
            f"job {number} is {state} and has no results, but "
            f"{counted(len(artifacts), 'file')} of checkpoints",
            remedy=f"studioq fetch {number} --all",
        )
    why = f": {job['reason']}" if job["reason"] else ""
    return ConflictError(
        f"job {number} is {state} and has no results{'' if job['ended_at'] else ' yet'}{why}",
        remedy=_where_else(job),
    )


def _where_else(job: Job) -> str:
    number = job["id"]
    if job["ended_at"]:
        return f"studioq show {number} says how it went"
    previewed = job["kind"] == "diffuse" and job["spec"].get("preview_every") != 0
    if job["state"] == "running" and previewed:
        return (
            f"studioq fetch {number} --preview brings the picture that is being made; "
            f"studioq wait {number} waits for all"
        )
    return f"studioq wait {number} waits for its end"
