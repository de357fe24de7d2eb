"""What a job of each kind may say: one pydantic model per kind, and the request around it.

The rule this module protects: a job can be repeated from its ledger row alone. So every field has
its default here, unknown fields are errors, the seed is drawn when the spec is accepted, and a file
is named by its hash and never by a path.
"""

from __future__ import annotations

import os
import re
import secrets
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from daemon.errors import SpecRefusedError
from daemon.refusals import refusal

_ADAPTER = re.compile(r"job:(\d+)(?:@(\d+))?")
_MODEL = re.compile(r"[A-Za-z0-9][\w.+-]*(?:/[A-Za-z0-9][\w.+-]*){0,2}")
MAX_SEED = 2**32 - 1
MAX_COUNT = 10_000_000
_LAYER_NAMES = "names of layers (1 to 100 letters, digits, _ and dots)"


def _model_name(name: str) -> str:
    if not _MODEL.fullmatch(name) or ".." in name:
        raise ValueError(
            f"{name!r} is not a model's name: give a folder's name under the model roots, "
            "a Hugging Face id such as org/name, or smollm2"
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
Positive = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Fraction = Annotated[float, Field(ge=0, le=1)]


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
    ]

    def input_files(self) -> dict[str, InputFile]:
        """Return every uploaded file that the spec cites, by its place in the spec."""
        return dict(_files_of(self, ""))

    def job_references(self) -> dict[str, str]:
        """Return every ``job:N[@STEP]`` that the spec cites, by field."""
        return {
            name: value
            for name, value in self
            if isinstance(value, str) and name in {"adapter", "resume"}
        }


def _files_of(model: BaseModel, prefix: str) -> list[tuple[str, InputFile]]:
    found: list[tuple[str, InputFile]] = []
    for name, value in model:
        if isinstance(value, InputFile):
            found.append((prefix + name, value))
        elif isinstance(value, BaseModel):
            found.extend(_files_of(value, f"{prefix}{name}."))
    return found


class TrainingData(Strict):
    """Rows for training: three files, or one (``rows``) of which a tenth is kept for validation."""

    train: InputFile | None = None
    valid: InputFile | None = None
    test: InputFile | None = None
    rows: InputFile | None = None

    @model_validator(mode="after")
    def _one_way(self) -> TrainingData:
        if (self.train is None) == (self.rows is None):
            raise ValueError(
                "give either train (with valid and test) or rows, which is split by seed"
            )
        if self.rows is not None and (self.valid or self.test):
            raise ValueError("rows is split by seed; it cannot stand beside valid or test")
        return self


class AdapterFiles(Strict):
    """An adapter from the client's disk: its weights and its ``adapter_config.json``."""

    weights: InputFile
    config: InputFile


class TrainSpec(Spec):
    """LoRA, DoRA or full fine-tuning of a language model."""

    model: Annotated[ModelName, Field(description="Model to fine-tune.")]
    data: Annotated[
        TrainingData, Field(description="jsonl rows: text, prompt/completion or messages.")
    ]
    iters: Annotated[int, Field(ge=1, le=MAX_COUNT, description="Training iterations.")] = 600
    batch_size: Annotated[int, Field(ge=1, le=65_536, description="Rows per iteration.")] = 4
    learning_rate: Annotated[float, Field(gt=0, le=10, description="Peak learning rate.")] = 1e-5
    num_layers: Annotated[
        Annotated[int, Field(ge=1, le=10_000)] | Literal["all"],
        Field(description="How many of the last layers are trained."),
    ] = 16
    rank: Annotated[int, Field(ge=1, le=4096, description="Rank of the LoRA or DoRA matrices.")] = 8
    scale: Annotated[float, Field(gt=0, le=1e4, description="Factor of the adapter's output.")] = (
        20.0
    )
    dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout before the adapter.")] = 0.0
    keys: Annotated[
        list[Annotated[str, Field(pattern=r"^[\w.]{1,100}$", description=_LAYER_NAMES)]] | None,
        Field(description="Linear layers that get an adapter (q_proj,v_proj); default: all."),
    ] = None
    fine_tune_type: Annotated[
        Literal["lora", "dora", "full"], Field(description="What is trained.")
    ] = "lora"
    optimizer: Annotated[
        Literal["adam", "adamw", "sgd", "adafactor"], Field(description="Optimizer.")
    ] = "adam"
    lr_schedule: Annotated[
        Literal["constant", "linear", "cosine"], Field(description="Decay after the warm-up.")
    ] = "constant"
    warmup: Annotated[
        int, Field(ge=0, le=MAX_COUNT, description="Iterations of linear warm-up.")
    ] = 0
    grad_accumulation: Annotated[
        int, Field(ge=1, le=4096, description="Iterations whose gradients make one update.")
    ] = 1
    max_seq_length: Annotated[
        int, Field(ge=2, le=1_048_576, description="Tokens; longer rows are truncated and counted.")
    ] = 2048
    mask_prompt: Annotated[
        bool, Field(description="Leave the prompt's tokens out of the loss.")
    ] = False
    grad_checkpoint: Annotated[bool, Field(description="Recompute activations to save memory.")] = (
        False
    )
    steps_per_report: Annotated[
        int, Field(ge=1, le=MAX_COUNT, description="Iterations per report.")
    ] = 10
    steps_per_eval: Annotated[
        int, Field(ge=1, le=MAX_COUNT, description="Iterations per validation.")
    ] = 200
    val_batches: Annotated[
        int, Field(ge=-1, le=MAX_COUNT, description="Batches per validation; -1: all.")
    ] = 25
    save_every: Annotated[
        int, Field(ge=1, le=MAX_COUNT, description="Iterations per checkpoint.")
    ] = 100
    test: Annotated[bool, Field(description="Measure the loss on the test rows at the end.")] = (
        False
    )
    resume: Annotated[
        JobReference | None,
        Field(description="Start from this job's adapter: job:N or job:N@STEP."),
    ] = None
    sample_prompt: Annotated[
        str | None, Field(max_length=100_000, description="Answer this after each validation.")
    ] = None


class InferSpec(Spec):
    """Text generation from one prompt or a file of prompts."""

    model: Annotated[ModelName, Field(description="Model to ask.")]
    prompt: Annotated[str | None, Field(max_length=4_000_000, description="The prompt.")] = None
    prompts: Annotated[
        InputFile | None, Field(description='jsonl rows {"prompt": …}, optionally with "expected".')
    ] = None
    adapter: Annotated[
        JobReference | AdapterFiles | None,
        Field(description="job:N, job:N@STEP, or uploaded files."),
    ] = None
    system: Annotated[str | None, Field(max_length=1_000_000, description="System message.")] = None
    raw: Annotated[
        bool, Field(description="Send the prompt as it is, without the chat template.")
    ] = False
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576, description="Most tokens per answer.")] = (
        256
    )
    temp: Annotated[float, Field(ge=0, le=100, description="Temperature; 0 is greedy.")] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, description="Nucleus sampling; 1 is off.")] = 1.0
    top_k: Annotated[
        int, Field(ge=0, le=MAX_COUNT, description="Most likely tokens kept; 0 is off.")
    ] = 0
    min_p: Annotated[
        float, Field(ge=0, le=1, description="Least share of the best token; 0 is off.")
    ] = 0.0
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1000)]],
        Field(max_length=64, description="Texts that end an answer; not part of it."),
    ] = []

    @model_validator(mode="after")
    def _one_source(self) -> InferSpec:
        if (self.prompt is None) == (self.prompts is None):
            given = "neither" if self.prompt is None else "both"
            raise ValueError(f"prompt and prompts: {given} given; one of the two is needed")
        if self.raw and self.system is not None:
            raise ValueError(
                "a raw prompt has no place for a system message; leave out raw or system"
            )
        return self


class NoopSpec(Spec):
    """Does nothing, for tests and benchmarks; refused unless STUDIOQ_TEST_KINDS=1."""

    model: ModelName | None = None
    steps: Annotated[int, Field(ge=0, le=MAX_COUNT, description="Safe points to pass.")] = 0
    step_seconds: Annotated[float, Field(ge=0, le=3600, description="Time each takes.")] = 0.0
    checkpoint_every: Annotated[int, Field(ge=0, le=MAX_COUNT, description="0: never.")] = 0
    fail_at: Annotated[int | None, Field(ge=0, description="Fail at this step.")] = None
    deaf: Annotated[bool, Field(description="Sleep all the time in one step, hearing nothing.")] = (
        False
    )


SPECS: dict[str, type[Spec]] = {"train": TrainSpec, "infer": InferSpec, "noop": NoopSpec}
TEST_KINDS = frozenset({"noop"})
Kind = Literal["train", "infer", "noop"]


def offered_kinds() -> tuple[str, ...]:
    """Return the kinds that a user may submit here."""
    hidden = frozenset() if os.environ.get("STUDIOQ_TEST_KINDS") == "1" else TEST_KINDS
    return tuple(kind for kind in get_args(Kind) if kind not in hidden)


class JobRequest(Strict):
    """One submission: the kind, its spec, and what the queue needs to know."""

    kind: str
    spec: dict[str, Any]
    name: Annotated[str | None, Field(max_length=200)] = None
    priority: Literal["low", "normal", "high"] = "normal"
    after: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=1000)] = []
    hold: bool = False
    begin_at: float | None = None
    time_limit_seconds: Annotated[float | None, Field(gt=0, le=366 * 86400)] = None
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    share: bool = False

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str | None) -> str | None:
        if name is not None and not name.isprintable():
            raise ValueError(f"{name!r} has control characters; a name is one printable line")
        return name


def parse_request(data: object) -> JobRequest:
    """Check the envelope of a submission.

    Raises:
        SpecRefusedError: names the first wrong field, its value and what is allowed.
    """
    try:
        return JobRequest.model_validate(data)
    except ValidationError as error:
        raise refusal(error, JobRequest) from None


def parse_spec(kind: str, spec: object) -> Spec:
    """Check the spec of a job of ``kind`` and fill its defaults, the seed included.

    Raises:
        SpecRefusedError: names the first wrong field, its value and what is allowed.
    """
    if kind not in offered_kinds():
        raise SpecRefusedError(
            f"there is no job kind {kind!r}",
            field="kind",
            remedy=f"one of: {', '.join(offered_kinds())}",
        )
    try:
        return SPECS[kind].model_validate(spec)
    except ValidationError as error:
        raise refusal(error, SPECS[kind]) from None


def load_spec(kind: str, spec: object) -> Spec:
    """Rebuild a recorded spec, which was checked when it was accepted.

    Raises:
        SpecRefusedError: it was recorded by another version, and no longer fits.
    """
    try:
        return SPECS[kind].model_validate(spec)
    except ValidationError as error:
        raise refusal(error, SPECS[kind]) from None


def schema() -> dict[str, Any]:
    """Return the JSON Schema of every offered kind, and of the request around it."""
    return {
        "request": JobRequest.model_json_schema(),
        "kinds": {kind: SPECS[kind].model_json_schema() for kind in offered_kinds()},
    }
