"""What the specs of all kinds are made of: names, uploaded files, references to jobs, the seed.

The rule this module protects: a spec is frozen and knows all its fields, and a file in it is named
by its hash and never by a path.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

_ADAPTER = re.compile(r"job:(\d+)(?:@(\d+))?")
_MODEL = re.compile(r"[A-Za-z0-9][\w.+-]*(?:/[A-Za-z0-9][\w.+-]*){0,2}")
MAX_SEED = 2**32 - 1
MAX_COUNT = 10_000_000
_LAYER_NAMES = "names of layers (1 to 100 letters, digits, _ and dots)"


# A name that is meant as a place on the disk: ./x, ../x, ~/x, /x, or with Windows' separators.
_PATH = re.compile(r"[./~]|.*\\")


def _model_name(name: str) -> str:
    if _PATH.match(name):
        raise refused(
            "model",
            f"model = {name!r} is a path; a model is named, wherever its files are",
            "put its folder or file under a model root (studioq models path), and give its name "
            "there; studioq models lists what there is",
        )
    if not _MODEL.fullmatch(name) or ".." in name:
        raise ValueError(
            f"{name!r} is not a model's name: give a folder's name under the model roots, "
            "a Hugging Face id such as org/name, or one of the demo models smollm2 and shapes"
        )
    return name


def _job_reference(text: str) -> str:
    if not _ADAPTER.fullmatch(text):
        raise ValueError(f"{text!r} does not name a job: write job:N or job:N@STEP")
    return text


def parse_job_reference(text: str) -> tuple[int, int | None]:
    """Split ``job:N[@STEP]`` into job number and step (None: the job's final adapter)."""
    match = _ADAPTER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} does not name a job: write job:N or job:N@STEP")
    return int(match[1]), int(match[2]) if match[2] else None


ModelName = Annotated[str, AfterValidator(_model_name)]
JobReference = Annotated[str, AfterValidator(_job_reference)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def called(option: str) -> Any:
    """Say in a field's schema what the command line calls it, where that is not ``--its-name``."""
    return Field(json_schema_extra={"option": option})


def advised(remedy: str) -> Any:
    """Say in a field's schema what to do about a value that is not allowed."""
    return Field(json_schema_extra={"remedy": remedy})


def refused(field: str, said: str, remedy: str) -> PydanticCustomError:
    """Return what a validator raises that has its own words: ``said`` names field and value."""
    return PydanticCustomError(
        "refused", "{said}", {"said": said, "field": field, "remedy": remedy}
    )


class Strict(BaseModel):
    """Frozen, no unknown fields, no infinities or NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputFile(Strict):
    """An uploaded file: the name its owner gave it, for messages, and the hash of its content."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    sha256: Annotated[
        str, Field(pattern=r"^[0-9a-f]{64}$", description="the 64 hex digits of a SHA-256")
    ]


class Spec(Strict):
    """Options that all kinds have."""

    seed: Annotated[
        int,
        Field(
            default_factory=lambda: secrets.randbelow(2**31),
            ge=0,
            le=MAX_SEED,
            description="Seed of every random choice of the job; drawn and recorded if not given.",
        ),
        advised("leave --seed out for a random one, which is drawn and recorded"),
    ]

    def input_files(self) -> dict[str, InputFile]:
        """Return every uploaded file that the spec cites, by its place in the spec."""
        return dict(_files_of(self, ""))

    def job_references(self) -> dict[str, str]:
        """Return every ``job:N[@STEP]`` that the spec cites, by field."""
        return {
            name: value
            for name, value in self
            if isinstance(value, str) and name in {"adapter", "resume", "fuse"}
        }


def _files_of(value: object, place: str) -> Iterator[tuple[str, InputFile]]:
    """Yield the files in a value and their places: ``data.train``, ``lora.0.file``."""
    if isinstance(value, InputFile):
        yield place, value
        return
    parts = enumerate(value) if isinstance(value, list) else iter(())
    for name, part in value if isinstance(value, BaseModel) else parts:
        yield from _files_of(part, f"{place}.{name}" if place else str(name))
