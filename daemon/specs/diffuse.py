"""What a diffusion job may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from daemon.specs.base import Fraction, InputFile, ModelName, Spec, Strict, called, refused

# The most pixels that a picture may have, be it brought or asked for. A bound on nonsense: what a
# machine's memory holds is known to its worker.
MAX_PIXELS = 100_000_000
LONGEST_SIDE = 16_384
MAX_STEPS = 1000
SIDE_STEP = 8

_LONGEST_PROMPT = 10_000


def _not_blank(prompt: str) -> str:
    if not prompt.strip():
        raise refused(
            "prompt",
            f"prompt = {prompt[:40]!r}: it is empty; allowed are texts of at most "
            f"{_LONGEST_PROMPT:,} characters that say something",
            'say what the picture shows, for example: studioq diffuse "a red circle"',
        )
    return prompt


class LoraFile(Strict):
    """A LoRA file from the client's disk, and how strongly it counts."""

    file: InputFile
    scale: Annotated[float, Field(ge=-10, le=10, description="Factor; 1 is as trained.")] = 1.0


class DiffuseSpec(Spec):
    """Pictures from a text, from a picture and a text, or within a mask."""

    prompt: Annotated[
        str,
        AfterValidator(_not_blank),
        Field(
            max_length=_LONGEST_PROMPT,
            description="What the pictures show.",
        ),
        called("PROMPT"),
    ]
    model: Annotated[ModelName, Field(description="Image model.")] = "shapes"
    negative_prompt: Annotated[
        str | None, Field(max_length=_LONGEST_PROMPT, description="What they shall not show.")
    ] = None
    n_images: Annotated[int, Field(ge=1, le=1000, description="Number of pictures.")] = 1
    batch_size: Annotated[
        Annotated[int, Field(ge=1, le=256)] | Literal["auto"],
        Field(description="Pictures made at once; auto: what memory allows."),
    ] = "auto"
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS, description="Denoising steps.")] = 25
    cfg: Annotated[float, Field(ge=0, le=100, description="Guidance by the prompt; 0 is off.")] = (
        7.5
    )
    sampler: Annotated[
        Literal["ddim", "euler", "euler-a", "dpm++2m", "dpm++2m-karras", "lcm"],
        Field(description="How noise is taken away."),
    ] = "ddim"
    width: Annotated[
        int | None,
        Field(
            ge=SIDE_STEP,
            le=LONGEST_SIDE,
            multiple_of=SIDE_STEP,
            description="Pixels; default: the image's, or the model's own size.",
        ),
    ] = None
    height: Annotated[
        int | None,
        Field(
            ge=SIDE_STEP,
            le=LONGEST_SIDE,
            multiple_of=SIDE_STEP,
            description="Pixels; default: the image's, or the model's own size.",
        ),
    ] = None
    image: Annotated[InputFile | None, Field(description="Picture to start from.")] = None
    strength: Annotated[Fraction, Field(description="How much of the image is made anew.")] = 0.7
    mask: Annotated[
        InputFile | None, Field(description="Picture of the image's size; white is painted anew.")
    ] = None
    lora: Annotated[
        list[LoraFile], Field(max_length=16, description="LoRA files and their factors.")
    ] = []  # noqa: RUF012 - pydantic copies it
    metadata: Annotated[
        bool,
        Field(
            description="Write prompt and options into the PNG files.",
        ),
        called("--no-metadata"),
    ] = True
    preview_every: Annotated[
        int, Field(ge=0, le=1000, description="Steps per preview; 0: none.")
    ] = 5
    prediction_type: Annotated[
        Literal["epsilon", "v_prediction"] | None,
        Field(description="What the network predicts; default: what the model says."),
    ] = None

    @model_validator(mode="after")
    def _fit_together(self) -> DiffuseSpec:
        if self.image is None:
            self._check_no_image()
        if self.width and self.height and self.width * self.height > MAX_PIXELS:
            raise refused(
                "width",
                f"width = {self.width} and height = {self.height} make "
                f"{self.width * self.height / 1e6:.0f} megapixels; allowed are at most "
                f"{MAX_PIXELS / 1e6:.0f}",
                "choose a smaller --width or --height",
            )
        return self

    def _check_no_image(self) -> None:
        """Refuse what only makes sense beside an image.

        A recorded spec has all fields, the image's null too: there the strength is a default.
        """
        if self.mask is not None:
            raise refused(
                "mask",
                f"mask = {self.mask.name!r}: there is no image of which it could be the mask",
                "give --image FILE too, or leave --mask out",
            )
        if "strength" in self.model_fields_set and "image" not in self.model_fields_set:
            raise refused(
                "strength",
                f"strength = {self.strength:g}: there is no image to start from; pictures from a "
                "text alone know no strength",
                "give --image FILE too, or leave --strength out",
            )
