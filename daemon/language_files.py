"""What a language model's files must hold, as far as JSON and the headers of weights tell it.

The rule this module protects: what is missing, cut short or of an unknown kind is refused before a
job is queued, by its place in the model, and nothing is asked for that a whole model lacks.
Imports no MLX: whether the tensors fit the network is the engine's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon.architectures import check_architecture, check_gguf_architecture
from daemon.errors import ModelError
from daemon.gguf_header import read_gguf_header
from daemon.layer_count import check_layer_count
from daemon.lfs_pointers import check_no_pointer
from daemon.models import CONFIG, PARAMS
from daemon.npz_header import read_npz_header
from daemon.regular_files import check_regular, read_regular, unreadable
from daemon.release_files import find_npz, find_shards
from daemon.release_fit import check_release
from daemon.safetensors_header import WeightsHeader, read_safetensors_header
from daemon.torch_header import read_torch_header
from daemon.weights_count import Quantization, WeightsCount, count_weights, quantization_of

# The network of Meta's and Mistral's releases, whose params.json names none.
RELEASED = "llama"

_INDEX = "model.safetensors.index.json"
_SENTENCEPIECE, _TEKKEN = "tokenizer.model", "tekken.json"
_TOKENIZERS = ("tokenizer.json", _SENTENCEPIECE, "vocab.json", "vocab.txt", "tokenizer_config.json")
_AGAIN = "copy or download the whole model again"

Json = Mapping[str, Any]
Reader = Callable[..., WeightsHeader]


@dataclass(frozen=True, kw_only=True)
class LanguageFacts:
    """What a language model is; ``None`` where its files do not say it."""

    architecture: str | None = None
    count: WeightsCount | None = None


@dataclass(frozen=True, kw_only=True)
class LanguageFiles:
    """A language model's folder or GGUF file; ``name`` is what messages call it."""

    name: str
    path: Path
    format: str

    def facts(self) -> Iterator[LanguageFacts]:
        """Yield what is known, more each time, until all has been checked.

        Raises:
            ModelError: names the file, and what is wrong with it.
        """
        known = {"gguf": self._gguf, "original": self._release, "npz": self._npz}
        if self.path.is_dir():
            check_regular(self.path, self.name)
        yield from known.get(self.format, self._folder)()

    def weights(self) -> tuple[list[WeightsHeader], Quantization]:
        """Return the headers of all weights, and what the configuration says of packed ones.

        Raises:
            ModelError: names the file, and what is wrong with it.
        """
        plain = Quantization()
        if self.format == "gguf":
            return self._headers([self._only_gguf()], read_gguf_header), plain
        if self.format == "original":
            shards = find_shards(self.path, name=self.name)
            return self._headers(shards, _read_released), plain
        if self.format == "npz":
            arrays = find_npz(self.path, name=self.name)
            return self._headers(arrays, read_npz_header), quantization_of(self._npz_config())
        settings = quantization_of(self._object(CONFIG))
        return self._headers(self._shards(), read_safetensors_header), settings

    def _folder(self) -> Iterator[LanguageFacts]:
        config = self._object(CONFIG)
        facts = LanguageFacts(architecture=_model_type(config))
        yield facts
        headers = self._headers(self._shards(), read_safetensors_header)
        facts = replace(facts, count=_counted(headers, config))
        yield facts
        check_architecture(self.name, facts.architecture)
        names = {tensor.name for header in headers for tensor in header.tensors}
        check_layer_count(self.name, CONFIG, config, names)
        self._check_tokenizer()

    def _gguf(self) -> Iterator[LanguageFacts]:
        (header,) = self._headers([self._only_gguf()], read_gguf_header)
        architecture = header.metadata.get("general.architecture")
        named = architecture if isinstance(architecture, str) else None
        yield LanguageFacts(architecture=named, count=count_weights([header]))
        if named is None:
            raise self._wrong("names no general.architecture", _AGAIN)
        self._check_parts(header)
        check_gguf_architecture(self.name, named, header.metadata)
        if "tokenizer.ggml.model" not in header.metadata:
            raise self._wrong(
                f"({named}) holds no tokenizer, as the GGUF file of a language model does",
                "use the file of the language model itself",
            )

    def _check_parts(self, header: WeightsHeader) -> None:
        parts = header.metadata.get("split.count", 1)
        if parts != 1:
            raise self._wrong(
                f"is one of the {parts} files of its model",
                "merge them with llama.cpp's llama-gguf-split --merge",
            )

    def _release(self) -> Iterator[LanguageFacts]:
        params = self._object(PARAMS)
        facts = LanguageFacts(architecture=RELEASED)
        yield facts
        headers = self._headers(find_shards(self.path, name=self.name), _read_released)
        yield replace(facts, count=count_weights(headers, split=True))
        check_release(self.name, params, headers)
        self._check_tokenizer()

    def _npz(self) -> Iterator[LanguageFacts]:
        config = self._npz_config()
        facts = LanguageFacts(architecture=_model_type(config) or RELEASED)
        yield facts
        headers = self._headers(find_npz(self.path, name=self.name), read_npz_header)
        facts = replace(facts, count=_counted(headers, config))
        yield facts
        check_architecture(self.name, facts.architecture)
        self._check_tokenizer()

    def _npz_config(self) -> Json:
        for name in (CONFIG, PARAMS):
            if (self.path / name).is_file():
                return self._object(name)
        raise self._wrong(
            f"has arrays and neither {CONFIG} nor {PARAMS}, so the network's sizes are unknown",
            "put the file beside them that was published with the weights",
        )

    def _headers(self, files: Iterable[Path], read: Reader) -> list[WeightsHeader]:
        return [self._header(file, read) for file in files]

    def _header(self, file: Path, read: Reader) -> WeightsHeader:
        place = self.name if file == self.path else f"{self.name}: {file.name}"
        try:
            check_no_pointer(file, place)
            return read(file, name=place)
        except OSError as error:
            raise unreadable(place, error) from None

    def _object(self, place: str) -> Json:
        try:
            found = json.loads(read_regular(self.path / place))
        except FileNotFoundError:
            raise self._lacks(place) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(
                f"{self.name}: {place} cannot be read: {error}", remedy=_AGAIN
            ) from None
        if not isinstance(found, dict):
            raise ModelError(f"{self.name}: {place} is no JSON object", remedy=_AGAIN)
        return found

    def _shards(self) -> list[Path]:
        """Return the weights of a folder with ``config.json``, all that its index names."""
        found = sorted(self.path.glob("model*.safetensors"))
        if not found:
            raise self._no_weights()
        if (self.path / _INDEX).is_file():
            listed = self._object(_INDEX).get("weight_map")
            if not isinstance(listed, dict):
                raise ModelError(f"{self.name}: {_INDEX} has no weight_map", remedy=_AGAIN)
            there = {file.name for file in found}
            for file in sorted({str(file) for file in listed.values()} - there):
                raise self._lacks(file)
        return found

    def _no_weights(self) -> ModelError:
        pickled = next((file.name for file in sorted(self.path.glob("*.bin"))), None)
        if pickled is not None:
            return self._wrong(
                f"has its weights in {pickled}, a pickle, which is never read",
                "use the model's version in safetensors",
            )
        other = next((file.name for file in sorted(self.path.glob("*.safetensors"))), None)
        found = (
            f"its only safetensors are called otherwise ({other})" if other else "no safetensors"
        )
        return self._wrong(
            f"has no weights: there is no model*.safetensors in it, {found}",
            "download the model's safetensors files, or convert it first",
        )

    def _only_gguf(self) -> Path:
        if self.path.is_file():
            return self.path
        found = sorted(self.path.glob("*.gguf"))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise self._wrong(
                f"holds {len(found)} GGUF files ({names}), so which is meant is unclear",
                "keep one GGUF file per model folder",
            )
        if not found:
            raise self._lacks("GGUF file")
        return found[0]

    def _check_tokenizer(self) -> None:
        there = [name for name in _TOKENIZERS if (self.path / name).is_file()]
        for name in there:
            with suppress(OSError):  # the engine, which reads it, says why it cannot
                check_no_pointer(self.path / name, f"{self.name}: {name}")
        for name in there:
            if (self.path / name).stat().st_size == 0:
                raise self._wrong(f"has an empty {name}", "copy the model's own over it")
        if there:
            return
        versions = sorted(self.path.glob(f"{_SENTENCEPIECE}.v*"))
        if versions:
            raise self._wrong(
                f"has its tokenizer in {versions[0].name} alone, which is not read",
                f"rename it to {_SENTENCEPIECE}, or copy tokenizer.json into the folder",
            )
        other = (self.path / _TEKKEN).is_file()
        raise self._wrong(
            f"has its tokenizer in {_TEKKEN} alone, which is not read"
            if other
            else f"has no tokenizer: neither tokenizer.json nor {_SENTENCEPIECE} is in it",
            "copy tokenizer.json and tokenizer_config.json from the model's Hugging Face folder",
        )

    def _lacks(self, place: str) -> ModelError:
        return ModelError(f"{self.name} is incomplete: it has no {place}", remedy=_AGAIN)

    def _wrong(self, reason: str, remedy: str) -> ModelError:
        return ModelError(f"{self.name} {reason}", remedy=remedy)


def lacks_config(folder: Path) -> bool:
    """Return whether a folder of an unknown format has what stands beside a ``config.json``."""
    patterns = ("model*.safetensors", "pytorch_model*.bin", *_TOKENIZERS)
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def _read_released(file: Path, *, name: str) -> WeightsHeader:
    read: Reader = read_torch_header if file.suffix == ".pth" else read_safetensors_header
    return read(file, name=name)


def _model_type(config: Json) -> str | None:
    found = config.get("model_type")
    return found if isinstance(found, str) else None


def _counted(headers: Sequence[WeightsHeader], config: Json) -> WeightsCount:
    quantization: Quantization = quantization_of(config)
    return count_weights(
        headers,
        quantization,
        tied=config.get("tie_word_embeddings") is True,
        split=config.get("model_type") is None,
    )
