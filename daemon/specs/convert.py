"""What a conversion may say.

The rule this module protects: what cannot be, whatever the model is, is refused here. What the
source's own files forbid is refused where they are read: ``daemon.quantised``, and the engine.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from daemon.specs.base import JobReference, ModelName, Spec, called, refused
from daemon.specs.language import AdapterFiles

# mlx-lm's group size for bits and recipes, and the one that each of its other modes has
# (``defaults_for_mode`` in mlx_lm.utils.quantize_model; mx.quantize takes no other).
GROUP_SIZE = 64
MODE_GROUPS = {"mxfp4": 32, "mxfp8": 32, "nvfp4": 16}

Quantize = Literal[
    "2",
    "3",
    "4",
    "5",
    "6",
    "8",
    "mixed_2_6",
    "mixed_3_4",
    "mixed_3_6",
    "mixed_4_6",
    "mxfp4",
    "mxfp8",
    "nvfp4",
]

# ASCII, so that the name and what stands around it while it is written fit any file system.
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
_FILE_ENDINGS = (".gguf", ".safetensors", ".npz")


def _target(name: str) -> str:
    if "/" in name:
        last = name.rpartition("/")[2]
        meant = last if _is_name(last) else "NAME"
        raise refused(
            "to",
            f"to = {name!r} has a slash; the model is always called USER/NAME, after the one who "
            "submits the job",
            f"give the last part alone: --to {meant}",
        )
    if name.endswith(_FILE_ENDINGS):
        raise refused(
            "to",
            f"to = {name!r} is the name of a file; a folder in MLX's layout is written",
            f"leave the ending out: --to {name.rpartition('.')[0]}",
        )
    if not _is_name(name):
        raise refused(
            "to",
            f"to = {name[:110]!r} cannot be a model's name; allowed are 1 to 100 letters a to z, "
            "digits, and . _ + -, the first one a letter or digit, without two dots in a row",
            "choose another --to",
        )
    return name


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and ".." not in text


def _bits_as_text(value: object) -> object:
    """Let ``4`` stand for ``"4"``; it is recorded as the text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class ConvertSpec(Spec):
    """A model in any format that is read, written as a folder in MLX's layout."""

    model: Annotated[ModelName, Field(description="Model to convert."), called("SRC")]
    to: Annotated[
        str,
        AfterValidator(_target),
        Field(description="Name of the new model, which is then called USER/NAME."),
    ]
    quantize: Annotated[
        Quantize | None,
        BeforeValidator(_bits_as_text),
        Field(description="Bits per weight, a mixed recipe or a floating-point mode."),
    ] = None
    group_size: Annotated[
        Literal[16, 32, 64, 128] | None,
        Field(description="Weights that share a scale; default: 64, or the mode's own."),
    ] = None
    dtype: Annotated[
        Literal["bf16", "fp16", "fp32"] | None,
        Field(description="Type of what is not quantized; default: as stored."),
    ] = None
    dequantize: Annotated[
        bool, Field(description="Turn a quantized source into plain weights first.")
    ] = False
    fuse: Annotated[
        JobReference | AdapterFiles | None,
        Field(description="Adapter to merge: job:N, job:N@STEP, or uploaded files."),
    ] = None

    @property
    def grouping(self) -> int | None:
        """Weights that share a scale in what is quantised; None: nothing is."""
        if self.quantize is None:
            return None
        return self.group_size or MODE_GROUPS.get(self.quantize, GROUP_SIZE)

    @model_validator(mode="after")
    def _fit_together(self) -> ConvertSpec:
        if self.group_size is None:
            return self
        if self.quantize is None:
            raise refused(
                "group_size",
                f"group_size = {self.group_size}: nothing is quantized, so nothing has groups",
                "give --quantize too, or leave --group-size out",
            )
        own = MODE_GROUPS.get(self.quantize)
        if own not in (None, self.group_size):
            raise refused(
                "group_size",
                f"group_size = {self.group_size}: {self.quantize} has groups of {own}, and no "
                "others",
                f"leave --group-size out; {self.quantize} brings its own",
            )
        if own is None and self.group_size == MODE_GROUPS["nvfp4"]:
            raise refused(
                "group_size",
                f"group_size = {self.group_size}: groups of {self.group_size} are nvfp4's alone; "
                f"with --quantize {self.quantize} allowed are 32, 64 and 128",
                "correct --group-size",
            )
        return self
