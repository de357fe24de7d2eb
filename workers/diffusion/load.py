"""Loading an image model from its folder or single file, in the form that is fast on this device.

The rule this module protects: networks compute in float32 on the CPU and in float16 on a GPU, and
whatever is wrong with the files becomes one ``ModelError`` that says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from daemon.errors import ModelError
from daemon.image_models import INDEX
from workers.diffusion import weights
from workers.diffusion.clip import ClipTextModel
from workers.diffusion.components import Component, Components
from workers.diffusion.configs import ClipConfig, UNetConfig, VaeConfig
from workers.diffusion.folder import model_files, read_folder
from workers.diffusion.schedule import SchedulerConfig
from workers.diffusion.single_file import read_single_file
from workers.diffusion.single_file_kinds import is_ignored
from workers.diffusion.tokenizer import Tokenizer
from workers.diffusion.unet import UNet2DConditionModel
from workers.diffusion.vae import AutoencoderKL
from workers.failures import memory_errors
from workers.language.formats import identify
from workers.language.headers import WeightsHeader, read_safetensors_header
from workers.memory import on_gpu, preserved_random_state
from workers.models import Loader, own_tree

Family = Literal["sd1", "sd2", "sdxl"]

_SD2_TEXT_WIDTH = 1024
_INPAINTING_CHANNELS = 9


@dataclass(frozen=True, kw_only=True)
class DiffusionModel:
    """A loaded image model. The networks are the holder's own module trees.

    ``size``: height and width in pixels for which it was trained. ``zero_empty_negative``: without
    a negative prompt guidance starts from zeros and not from an empty text (SDXL). ``fingerprint``:
    see ``workers.language.formats.fingerprint``; ``bytes``: the size of all weights.
    """

    name: str
    family: Family
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[ClipTextModel, ...]
    tokenizers: tuple[Tokenizer, ...]
    scheduler: SchedulerConfig
    size: tuple[int, int]
    zero_empty_negative: bool
    fingerprint: str
    bytes: int

    @property
    def dtype(self) -> mx.Dtype:
        """The type in which the UNet computes."""
        return self.unet.dtype

    @property
    def repaints(self) -> bool:
        """Whether the UNet takes a mask and the masked picture beside the latents."""
        return self.unet.config.in_channels == _INPAINTING_CHANNELS

    def networks(self) -> tuple[nn.Module, ...]:
        """Return all networks of the model."""
        return (self.unet, self.vae, *self.text_encoders)


def load_diffusion_model(path: Path, dtype: mx.Dtype | None = None) -> DiffusionModel:
    """Load the image model at ``path``: a folder in diffusers' layout or a single file.

    ``dtype``: the networks' type, by default float32 on the CPU and float16 on a GPU. The global
    random state is left as it was.

    Raises:
        ModelError: a component or tensor is missing, unknown, misshapen or damaged.
        OutOfMemoryError: the weights do not fit.
    """
    dtype = dtype or (mx.float16 if on_gpu() else mx.float32)
    with preserved_random_state(), memory_errors(f"loading {path.name}"):
        components = read_components(path)
        model = _build(path, components, dtype)
        for network in model.networks():
            network.eval()
            mx.eval(network.parameters())
    return model


def read_components(path: Path) -> Components:
    """Return configurations and unread tensors of the model at ``path``.

    Raises:
        ModelError: it is no image model, or a part of it is missing or damaged.
    """
    if (path / INDEX).is_file():
        return read_folder(path)
    return read_single_file(_only_file(path))


def _only_file(path: Path) -> Path:
    """Return the single file itself, or the only one of a folder."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    many = f"{len(found)} safetensors files" if found else "no safetensors file"
    raise ModelError(
        f"{path.name} is not an image model: it has no {INDEX}, and {many}",
        remedy="an image model is a folder in diffusers' layout or one safetensors checkpoint",
    )


def _build(path: Path, components: Components, dtype: mx.Dtype) -> DiffusionModel:
    unet = _unet(components.unet, dtype)
    encoders = tuple(_clip(component, dtype) for component in components.text_encoders)
    family = _family(unet)
    scheduler = SchedulerConfig.from_dict(components.scheduler)
    vae = _vae(components.vae, _vae_type(components.vae, family, dtype))
    _check_together(path.name, unet, vae, encoders)
    networks = (unet, vae, *encoders)
    return DiffusionModel(
        name=path.name,
        family=family,
        unet=unet,
        vae=vae,
        text_encoders=encoders,
        tokenizers=components.tokenizers,
        scheduler=scheduler if family == "sdxl" else scheduler.for_stable_diffusion(),
        size=_native_size(unet, vae),
        zero_empty_negative=components.zero_empty_negative,
        fingerprint=identify(_configs(path), _headers(path, components.files)),
        bytes=sum(_bytes(network) for network in networks),
    )


def _unet(component: Component, dtype: mx.Dtype) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(UNetConfig.read(component.source, component.config))
    weights.load_unet(unet, component, dtype=dtype)
    return unet


def _vae(component: Component, dtype: mx.Dtype) -> AutoencoderKL:
    vae = AutoencoderKL(VaeConfig.read(component.source, component.config))
    weights.load_vae(vae, component, dtype=dtype)
    return vae


def _clip(component: Component, dtype: mx.Dtype) -> ClipTextModel:
    projects = any(name.endswith("text_projection.weight") for name in component.weights)
    encoder = ClipTextModel(ClipConfig.read(component.source, component.config, projects=projects))
    weights.load_clip(encoder, component, dtype=dtype)
    return encoder


def _vae_type(component: Component, family: Family, dtype: mx.Dtype) -> mx.Dtype:
    """Return the VAE's type: SDXL's passes float16's range unless its configuration denies it."""
    upcast = component.config.get("force_upcast", True) is not False
    return mx.float32 if family == "sdxl" and upcast else dtype


def _family(unet: UNet2DConditionModel) -> Family:
    if unet.config.text_time is not None:
        return "sdxl"
    return "sd2" if unet.config.cross_dims[0] == _SD2_TEXT_WIDTH else "sd1"


def _native_size(unet: UNet2DConditionModel, vae: AutoencoderKL) -> tuple[int, int]:
    height, width = unet.config.sample_size
    return height * vae.config.factor, width * vae.config.factor


def _check_together(
    name: str, unet: UNet2DConditionModel, vae: AutoencoderKL, encoders: Sequence[ClipTextModel]
) -> None:
    """Refuse parts that do not belong together, before they fail in the middle of a job."""
    latent, text = vae.config.latent_channels, sum(encoder.config.width for encoder in encoders)
    if unet.config.in_channels not in (latent, _INPAINTING_CHANNELS):
        raise _apart(name, "UNet takes", unet.config.in_channels, "VAE makes", latent, "channels")
    if unet.config.out_channels != latent:
        raise _apart(name, "UNet makes", unet.config.out_channels, "VAE takes", latent, "channels")
    for width in unet.config.cross_dims:
        if width != text:
            raise _apart(name, "UNet takes", width, "text encoders make", text, "numbers a token")
    pooled = encoders[-1].config.projection
    if unet.config.text_time is not None:
        wanted = unet.config.text_time[1] - 6 * unet.config.text_time[0]
        if pooled != wanted:
            given = pooled or 0
            raise _apart(name, "UNet takes", wanted, "text encoder makes", given, "pooled numbers")


def _apart(name: str, taker: str, taken: int, maker: str, made: int, what: str) -> ModelError:
    return ModelError(
        f"the parts of {name} do not belong together: its {taker} {taken} {what}, "
        f"its {maker} {made}",
        remedy="use all components of one model",
    )


def _configs(path: Path) -> Iterator[Path]:
    """Yield the configuration files that enter the fingerprint."""
    if not (path / INDEX).is_file():
        sidecar = _only_file(path).with_suffix(".json")
        yield from [sidecar] if sidecar.is_file() else []
    for name in ("unet", "vae", "text_encoder", "text_encoder_2", "scheduler"):
        yield from sorted((path / name).glob("*config.json"))


def _bytes(network: nn.Module) -> int:
    return sum(array.nbytes for _, array in tree_flatten(network.parameters()))


def estimate_bytes(path: Path) -> int:
    """Return the memory that the loaded weights will take, bytes, from the files' headers."""
    files = list(model_files(path)) if (path / INDEX).is_file() else [_only_file(path)]
    width = 2 if on_gpu() else 4
    tensors = (tensor for _, header in _headers(path, files) for tensor in header.tensors)
    return sum(width * tensor.elements for tensor in tensors if not is_ignored(tensor.name))


def _headers(path: Path, files: Iterable[Path]) -> Iterator[tuple[Path, WeightsHeader]]:
    """Yield the files with their headers; messages name them by their places in the model."""
    for file in files:
        place = file.name if file == path else f"{path.name}: {file.relative_to(path).as_posix()}"
        yield file, read_safetensors_header(file, name=place)


def _own(model: DiffusionModel) -> DiffusionModel:
    return replace(
        model,
        unet=own_tree(model.unet),
        vae=own_tree(model.vae),
        text_encoders=tuple(own_tree(encoder) for encoder in model.text_encoders),
    )


DIFFUSION: Loader[DiffusionModel] = Loader(
    load=load_diffusion_model, estimate=estimate_bytes, own=_own
)
