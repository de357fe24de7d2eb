"""The shapes of the daemon's JSON answers, as docs/api.md states them.

They are TypedDicts because that is what they are: parsed JSON, unchecked, which a newer daemon may
give more keys. Nothing imports this module while a command runs.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class ErrorDict(TypedDict, total=False):
    """An error as it travels (``StudioqError.to_dict``)."""

    code: str
    message: str
    field: str | None
    remedy: str | None


class Progress(TypedDict):
    """How far a job is; ``done`` of ``total`` iterations or prompts, the rest in seconds."""

    done: int | None
    total: int | None
    eta_seconds: float | None


class Request(TypedDict, total=False):
    """What the queue needs to know of a submission; what is left out gets the daemon's default.

    ``begin_at`` is seconds since the epoch, ``after`` the jobs that must succeed first.
    """

    name: str
    priority: str
    after: list[int]
    hold: bool
    begin_at: float
    time_limit_seconds: float
    retries: int
    share: bool


class JobState(TypedDict):
    """What every call that changes a job answers; ``reason`` says why it is not running."""

    id: int
    state: str
    reason: str | None


class Accepted(JobState):
    """What a submission answers; ``notes`` are sentences on options that will not be used."""

    notes: list[str]


class Ending(TypedDict):
    """The answer of a wait: ``ended`` is false where the time was up first."""

    id: int
    state: str
    ended: bool
    reason: str | None
    error: ErrorDict | None


class JobLine(TypedDict):
    """A job as it stands in the list. Times are ISO 8601 UTC, sizes bytes.

    ``to``: what a conversion calls its model, in its owner's folder. ``attempt_started_at``: since
    when it runs; ``gpu_seconds`` are those of the attempts before.
    """

    id: int
    kind: str
    name: str | None
    user: str
    state: str
    reason: str | None
    priority: str
    position: int | None
    model: str | None
    to: NotRequired[str | None]
    created_at: str
    started_at: str | None
    attempt_started_at: NotRequired[str | None]
    ended_at: str | None
    progress: Progress | None
    peak_memory_bytes: int | None
    gpu_seconds: float | None
    revision: int
    mine: bool
    readable: bool
    error: ErrorDict | None


class JobList(TypedDict):
    """The queue, newest job first; ``total`` counts what the filters match."""

    revision: int
    total: int
    jobs: list[JobLine]


class Attempt(TypedDict):
    """One run of a job."""

    number: int
    state: str
    started_at: str | None
    ended_at: str | None
    gpu_seconds: float | None
    peak_memory_bytes: int | None
    reason: str | None


class Artifact(TypedDict, total=False):
    """A file that a job made; ``step`` names the checkpoint it belongs to."""

    name: str
    kind: str
    bytes: int
    sha256: str
    step: int | None
    attempt: int


class Job(TypedDict):
    """Everything about one job; ``metrics`` holds the last value of each.

    ``identical`` tells of a job that ``repeats`` another whether its adapters, texts,
    pictures and models have the same hashes (None: not known yet), and ``changed`` what it was made
    with that the other was not: [then, now] by the fact's name.
    """

    id: int
    kind: str
    name: str | None
    user: str
    state: str
    reason: str | None
    priority: str
    position: int | None
    to: NotRequired[str | None]
    spec: dict[str, Any]
    after: list[int]
    share: bool
    begin_at: str | None
    time_limit_seconds: float | None
    retries_left: int
    repeats: int | None
    identical: bool | None
    changed: dict[str, list[Any]] | None
    created_at: str
    started_at: str | None
    attempt_started_at: NotRequired[str | None]
    ended_at: str | None
    progress: Progress | None
    attempts: list[Attempt]
    artifacts: list[Artifact]
    metrics: dict[str, float]
    error: ErrorDict | None


class Metric(TypedDict):
    """One measured number; ``id`` grows, so that a reader can ask for what came after."""

    id: int
    attempt: int
    step: int
    name: str
    value: float
    at: str


class JobEvent(TypedDict):
    """One entry of a job's history."""

    id: int
    at: str
    action: str
    actor: str | None
    detail: Any


class Blob(TypedDict):
    """An uploaded file as a spec cites it: its owner's name for it, and its content's hash."""

    name: str
    sha256: str


class Lora(TypedDict):
    """An uploaded LoRA file as a spec lists it; without a ``scale`` the daemon's default counts."""

    file: Blob
    scale: NotRequired[float]


class Model(TypedDict):
    """A model that a spec may name; of one that is ``unusable`` ``error`` says why.

    ``parameters`` and ``bits`` (a parameter's, on average where they are mixed) are counted from
    the headers of its files, ``memory_bytes`` is what its weights take in this machine's engine,
    and ``fits`` is yes, tight or no. The last three are an image model's; ``native_size`` is width
    and height in pixels. None: not known.
    """

    name: str
    path: str | None
    format: str | None
    bytes: int | None
    state: str
    error: str | None
    remedy: str | None
    architecture: str | None
    parameters: int | None
    bits: float | None
    mixed_bits: bool | None
    memory_bytes: int | None
    fits: str | None
    family: str | None
    native_size: list[int] | None
    prediction_type: str | None


class ModelFile(TypedDict):
    """A file of a model, by its place in the model's folder."""

    name: str
    bytes: int


class Conversion(TypedDict, total=False):
    """The job that made a model, and the model it was made from."""

    job: int
    source: str
    source_fingerprint: str


class ModelPage(Model):
    """Everything about one model."""

    files: list[ModelFile]
    conversion: Conversion | None


class ModelMemory(TypedDict):
    """The bytes that models are compared with; ``source``: ``engine`` or ``machine``."""

    limit: int | None
    source: str


class ModelList(TypedDict):
    """The models and the folders they are looked for in, the first of which takes new ones."""

    models: list[Model]
    roots: list[str]
    memory: ModelMemory


class Removed(TypedDict):
    """The model that is gone, and the folder and files that were.

    ``held_bytes``: of files that have other names too, so that the disk does not get their room
    back; ``job``: the one that made the model, whose results they are.
    """

    name: str
    removed: list[str]
    held_bytes: int
    job: int | None


class UserShare(TypedDict):
    """One person's use of the GPU; ``share`` is the decayed part of the whole, 0 to 1."""

    user: str
    jobs: int
    gpu_seconds: float
    share: float


class Usage(TypedDict):
    """The use of the GPU by user."""

    users: list[UserShare]


class Status(TypedDict):
    """The daemon and its processes."""

    version: str
    pid: int
    home: str
    started_at: str
    revision: int
    draining: bool
    me: dict[str, Any]
    redis: dict[str, Any]
    worker: dict[str, Any]
    engine: dict[str, Any]
    jobs: dict[str, int]
