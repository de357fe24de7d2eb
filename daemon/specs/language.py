"""What a training and an inference may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from daemon.specs.base import MAX_COUNT, InputFile, JobReference, ModelName, Spec, Strict

_LAYER_NAMES = "names of layers (1 to 100 letters, digits, _ and dots)"


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
    """An adapter from the client's disk: its weights and its ``adapter_config.json``.

    MLX's examples of 2023 wrote no configuration.
    """

    weights: InputFile
    config: InputFile | None = None


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
    ] = []  # noqa: RUF012 - pydantic copies it

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
