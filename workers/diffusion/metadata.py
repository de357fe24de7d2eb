"""What a picture's file says about how it was made: two text chunks inside the PNG.

The rule this module protects: a picture can be repeated from its own file. ``parameters`` is the
text that A1111's web UI writes and many tools read; ``studioq`` is JSON with the whole recorded
spec and is what counts where the two could differ (A1111's text has no place for a prompt that
contains a line ``Negative prompt:``). A job without metadata passes no chunks at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from PIL import Image, PngImagePlugin

from daemon import __version__

PARAMETERS = "parameters"
RECORD = "studioq"

# The names that A1111's web UI gives the same samplers (its modules/sd_samplers_*.py). Since 1.9 it
# writes "DPM++ 2M" and a schedule type; the joined name is read by old and new versions alike.
SAMPLER_NAMES: Mapping[str, str] = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler-a": "Euler a",
    "dpm++2m": "DPM++ 2M",
    "dpm++2m-karras": "DPM++ 2M Karras",
    "lcm": "LCM",
}

_TAG_SEPARATORS = re.compile(r"[<>:,\s]+")


@dataclass(frozen=True, kw_only=True)
class LoraFact:
    """A LoRA file that took part: the name its owner gave it, its scale, ``lora_hash`` of it."""

    name: str
    scale: float
    hash: str

    @property
    def tag(self) -> str:
        """Return the name as it can stand in A1111's ``<lora:name:scale>``."""
        return _TAG_SEPARATORS.sub("_", PurePath(self.name).stem)


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """All that is recorded about one picture.

    ``spec`` is the job's spec as JSON has it, ``index`` the picture's number in the job and
    ``seed`` its own seed, ``width`` and ``height`` its pixels, ``fingerprint`` the model's hash.
    """

    spec: Mapping[str, Any]
    index: int
    seed: int
    width: int
    height: int
    fingerprint: str
    packages: Mapping[str, str]
    loras: tuple[LoraFact, ...] = ()


def text_chunks(facts: PictureFacts) -> dict[str, str]:
    """Return both chunks by their keywords."""
    return {PARAMETERS: parameters_text(facts), RECORD: record_text(facts)}


def parameters_text(facts: PictureFacts) -> str:
    """Return A1111's generation parameters: prompt, negative prompt, and one line of settings.

    The form is that of its ``create_infotext``: LoRA files stand as tags behind the prompt, and a
    value with a comma, colon or line end is quoted as JSON.
    """
    tags = "".join(f" <lora:{lora.tag}:{lora.scale:g}>" for lora in facts.loras)
    lines = [f"{facts.spec['prompt']}{tags}"]
    if facts.spec.get("negative_prompt"):
        lines.append(f"Negative prompt: {facts.spec['negative_prompt']}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in _settings(facts).items()))
    return _storable("\n".join(lines))


def record_text(facts: PictureFacts) -> str:
    """Return the JSON record: version, spec, the picture's own numbers, model and packages."""
    record = {
        "version": __version__,
        "spec": dict(facts.spec),
        "image": {
            "index": facts.index,
            "seed": facts.seed,
            "width": facts.width,
            "height": facts.height,
        },
        "model_fingerprint": facts.fingerprint,
        "packages": dict(facts.packages),
    }
    return json.dumps(record, sort_keys=True, allow_nan=False)


def png_info(chunks: Mapping[str, str]) -> PngImagePlugin.PngInfo | None:
    """Return the chunks for Pillow: tEXt where Latin-1 holds the text, else iTXt; None for none."""
    if not chunks:
        return None
    info = PngImagePlugin.PngInfo()
    for keyword, text in chunks.items():
        info.add_text(keyword, text)
    return info


def read_chunks(path: Path) -> dict[str, str]:
    """Return every text chunk of a PNG by keyword.

    Raises:
        OSError: ``path`` is not a picture that Pillow can read.
    """
    with Image.open(path) as image:
        return {key: str(value) for key, value in getattr(image, "text", {}).items()}


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the JSON record of a picture of this program; None if the file carries none."""
    text = read_chunks(path).get(RECORD)
    return None if text is None else json.loads(text)


def lora_hash(path: Path) -> str:
    """Return the 12 digits by which A1111 and model sites know a LoRA file.

    They are the beginning of the SHA-256 of the safetensors file without its header, so that
    editing the file's metadata does not change them (kohya's ``addnet_hash_safetensors``).
    """
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _settings(facts: PictureFacts) -> dict[str, str]:
    spec = facts.spec
    settings = {
        "Steps": str(spec["steps"]),
        "Sampler": SAMPLER_NAMES[spec["sampler"]],
        "CFG scale": f"{spec['cfg']:g}",
        "Seed": str(facts.seed),
        "Size": f"{facts.width}x{facts.height}",
        "Model hash": facts.fingerprint[:10],
        "Model": spec["model"],
    }
    if spec.get("image"):
        settings["Denoising strength"] = f"{spec['strength']:g}"
    if facts.loras:
        hashes = ", ".join(f"{lora.tag}: {lora.hash}" for lora in facts.loras)
        settings["Lora hashes"] = hashes
    settings["Version"] = f"studioq {__version__}"
    return settings


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n]", value) else value


def _storable(text: str) -> str:
    """Return text that a PNG chunk can hold: no NUL, which ends a field, and no lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
