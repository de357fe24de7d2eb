"""SentencePiece models as their files describe them.

The rule this module protects: a file is read by the ``sentencepiece`` package, whose word on it
counts, and a model with anything that a fast tokenizer would not follow is refused here.

The fields are those of ``sentencepiece_model.proto`` in github.com/google/sentencepiece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from daemon.errors import ModelError
from workers.language.vocabulary import Vocabulary

_KINDS = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}
_BPE = 2


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """A BPE model with identity normalisation.

    ``space_prefix``: a space goes before each text, and is taken off when it is decoded.
    ``unknown_text``: what the unknown piece shows as.
    """

    vocabulary: Vocabulary
    space_prefix: bool
    unknown_text: str


def read_sentencepiece(file: Path) -> SentencePieceModel:
    """Read a ``tokenizer.model``.

    Raises:
        ModelError: the file is damaged, or of a kind that is not supported.
    """
    name = f"{file.parent.name}/{file.name}"
    proto, reader = _parsed(file, name)
    for reason in _unsupported(proto):
        raise ModelError(
            f"{name} {reason}, which is not supported",
            remedy="add the model's tokenizer.json to the folder",
        )
    return SentencePieceModel(
        vocabulary=_vocabulary(proto, reader),
        space_prefix=bool(proto.normalizer_spec.add_dummy_prefix),
        unknown_text=str(proto.trainer_spec.unk_surface),
    )


def _parsed(file: Path, name: str) -> tuple[Any, Any]:
    """Return the file's message, and the processor that has accepted it."""
    try:
        data = file.read_bytes()
        proto = sentencepiece_model_pb2.ModelProto.FromString(data)
        if not (proto.HasField("trainer_spec") and proto.HasField("normalizer_spec")):
            raise ValueError("it ends before its settings")
        texts = [proto.trainer_spec.unk_surface, *(piece.piece for piece in proto.pieces)]
        for text in texts:
            if not isinstance(text, str):  # protobuf gives the bytes of what is not UTF-8
                raise ValueError(f"{text!r} in it is not UTF-8")
        return proto, SentencePieceProcessor(model_proto=data)
    except (OSError, ValueError, RuntimeError, DecodeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{name} is damaged, or is no SentencePiece model: {reason}",
            remedy="download the file again",
        ) from None


def _unsupported(proto: Any) -> Iterator[str]:
    """Yield what the model does that a fast tokenizer built from it would not do."""
    trained, normal = proto.trainer_spec, proto.normalizer_spec
    if trained.model_type != _BPE:
        yield f"is a SentencePiece model of the kind {_KINDS[trained.model_type]} and not BPE"
    if trained.treat_whitespace_as_suffix:
        yield "puts spaces behind words"
    if not normal.escape_whitespaces:
        yield "keeps spaces as they are"
    if normal.remove_extra_whitespaces:
        yield "removes repeated spaces"
    if normal.precompiled_charsmap or proto.denormalizer_spec.precompiled_charsmap:
        yield f"normalises text ({normal.name or 'without a name'})"


def _vocabulary(proto: Any, reader: Any) -> Vocabulary:
    found = {
        "unknown": reader.unk_id(),
        "bos": reader.bos_id(),
        "eos": reader.eos_id(),
        "padding": reader.pad_id(),
    }
    return Vocabulary(
        tokens=tuple(piece.piece for piece in proto.pieces),
        types=tuple(int(piece.type) for piece in proto.pieces),
        scores=tuple(float(piece.score) for piece in proto.pieces),
        roles={role: number for role, number in found.items() if number >= 0},
    )
