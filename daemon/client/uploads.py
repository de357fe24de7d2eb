"""The part of ``Client`` that brings local files to the daemon, as a spec cites them.

The rule it protects: a file travels once, and by its content; what the spec gets is its name and
its hash.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.client.transport import Transport

if TYPE_CHECKING:
    from daemon.client import answers

_WORTH_SAYING = 64 << 20


class Uploads:
    """Methods that upload files; ``Client`` brings the connection."""

    _transport: Transport
    _say: Callable[[str], None]

    def upload(self, path: str | Path) -> answers.Blob:
        """Bring a file to the daemon, unless it has it already; return it as a spec cites it.

        Raises:
            UsageError: the file cannot be read.
        """
        from daemon.client import inputs

        file = inputs.readable_file(Path(path))
        digest = inputs.hash_file(file)
        if not self.has_blob(digest):
            self._put(file, digest)
        return {"name": file.name, "sha256": digest}

    def has_blob(self, sha256: str) -> bool:
        """Return whether this user has uploaded a file with this hash."""
        with self._transport.open("HEAD", f"/blobs/{sha256}", accept=404) as response:
            return response.status != 404

    def training_data(self, path: str | Path) -> dict[str, answers.Blob]:
        """Upload a folder (train, valid, test.jsonl) or one file of rows; return a spec's data."""
        from daemon.client import inputs

        found = inputs.training_files(Path(path))
        return {place: self.upload(file) for place, file in found.items()}

    def adapter(self, text: str) -> str | dict[str, answers.Blob]:
        """Return a spec's ``adapter`` or ``fuse``: ``job:N[@STEP]``, or uploaded files."""
        if text.startswith("job:"):
            return text
        from daemon.client import inputs

        return {
            place: self.upload(file) for place, file in inputs.adapter_files(Path(text)).items()
        }

    def lora(self, text: str) -> answers.Lora:
        """Upload a LoRA file; return it as a spec's ``lora`` lists it.

        ``text`` is a path, or ``PATH:SCALE``.

        Raises:
            UsageError: the file cannot be read.
        """
        from daemon.client import inputs

        file, scale = inputs.lora_file(text)
        blob = self.upload(file)
        return {"file": blob} if scale is None else {"file": blob, "scale": scale}

    def _put(self, file: Path, digest: str) -> None:
        size = file.stat().st_size
        if size >= _WORTH_SAYING:
            self._say(f"uploading {file.name}, {size / 1e6:.0f} MB")
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with (
            file.open("rb") as body,
            self._transport.open("PUT", f"/blobs/{digest}", body=body, headers=headers) as answer,
        ):
            answer.read()
