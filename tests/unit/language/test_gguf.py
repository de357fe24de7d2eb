from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.rope_utils import Llama3RoPE
from tokenizers.pre_tokenizers import ByteLevel

from daemon.architectures import GGUF_ARCHITECTURES
from daemon.errors import ModelError
from workers.language.gguf import open_gguf, split_halves
from workers.language.gguf.architectures import ARCHITECTURES
from workers.language.gguf.names import LLAMA, PHI2, mlx_name
from workers.language.gguf.positions import llama3_scaling
from workers.language.headers import read_gguf_header
from workers.language.load import LanguageModel, load_language_model

Write = Callable[..., Path]
TEXT = "Hello  wörld 12\n<|im_end|>"


def test_a_gguf_file_is_the_same_network_as_the_folder(
    write_gguf: Write, tmp_path: Path, model: LanguageModel
) -> None:
    loaded = load_language_model(write_gguf(tmp_path / "tiny.gguf", metadata=NO_MERGES))
    tokens = mx.array([[5, 9, 2, 77]])
    assert mx.array_equal(loaded.model(tokens), model.model(tokens))
    assert loaded.bytes == model.bytes
    assert loaded.config["tie_word_embeddings"] is True


NO_MERGES = {"tokenizer.ggml.merges": None}


def test_a_gguf_file_brings_the_same_tokenizer(
    write_gguf: Write, tmp_path: Path, model: LanguageModel
) -> None:
    loaded = load_language_model(write_gguf(tmp_path / "tiny.gguf", metadata=NO_MERGES))
    for text in (TEXT, "", "  ", "\u00a0é漢😀", "a\tb"):
        assert loaded.tokenizer.encode(text) == model.tokenizer.encode(text)
        assert loaded.tokenizer.decode(model.tokenizer.encode(text)) == text
    messages = [{"role": "user", "content": "hi"}]
    ours, theirs = (
        each.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        for each in (loaded, model)
    )
    assert ours == theirs
    assert loaded.tokenizer.eos_token_ids == {1}


def test_a_folder_with_one_gguf_file_is_a_model(write_gguf: Write, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", metadata=NO_MERGES)
    assert load_language_model(tmp_path).name == tmp_path.name


def test_untied_output_weights_are_used(write_gguf: Write, tmp_path: Path) -> None:
    output = mx.random.normal((258, 64))
    loaded = load_language_model(
        write_gguf(tmp_path / "t.gguf", metadata=NO_MERGES, tensors={"output.weight": output})
    )
    assert mx.array_equal(loaded.model.lm_head.weight, output)


def test_a_start_token_is_added_where_the_file_says_so(write_gguf: Write, tmp_path: Path) -> None:
    metadata = NO_MERGES | {"tokenizer.ggml.add_bos_token": mx.array(True)}
    loaded = load_language_model(write_gguf(tmp_path / "t.gguf", metadata=metadata))
    assert loaded.tokenizer.encode("a")[0] == 0


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"general.architecture": "falcon"}, ["'falcon'", "llama", "gemma3"]),
        ({"llama.expert_count": mx.array(8, dtype=mx.uint32)}, ["8 experts"]),
        ({"llama.rope.scaling.type": "longrope"}, ["'longrope'"]),
        (
            {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.attn_factor": mx.array(1.2)},
            ["'yarn' with attn_factor"],
        ),
        ({"llama.rope.scaling.type": "yarn"}, ["no llama.rope.scaling.factor"]),
        ({"llama.rope.dimension_count": mx.array(8, dtype=mx.uint32)}, ["8 of a head's 16"]),
        ({"llama.attention.head_count_kv": mx.array([2, 1], dtype=mx.uint32)}, ["one number"]),
        ({"split.count": mx.array(3, dtype=mx.uint16)}, ["one of the 3 files", "merge"]),
        ({"llama.block_count": None}, ["llama.block_count"]),
        ({"tokenizer.ggml.tokens": None}, ["no tokenizer"]),
        ({"tokenizer.ggml.model": "bert"}, ["'bert'", "byte-level BPE"]),
        ({"tokenizer.ggml.model": "llama"}, ["no unknown piece"]),
        ({"tokenizer.ggml.pre": "chameleon"}, ["'chameleon'", "smollm"]),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    write_gguf: Write, tmp_path: Path, metadata: dict[str, object], words: list[str]
) -> None:
    path = write_gguf(tmp_path / "odd.gguf", metadata=NO_MERGES | metadata)
    with pytest.raises(ModelError) as refused:
        load_language_model(path)
    told = f"{refused.value.message} {refused.value.remedy}"
    assert all(word in told for word in words), told


def test_a_tensor_without_a_place_is_refused(write_gguf: Write, tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "odd.gguf", metadata=NO_MERGES, tensors={"attn_sinks.weight": mx.ones((8,))}
    )
    with pytest.raises(ModelError, match=r"attn_sinks\.weight"):
        load_language_model(path)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            {"blk.1.attn_q.weight": mx.ones((64, 32))},
            ["blk.1.attn_q.weight", "(64, 32)", "(64, 64)"],
        ),
        (
            {"blk.0.ffn_down.weight": None},
            ["incomplete", "model.layers.0.mlp.down_proj.weight", "blk.….ffn_down"],
        ),
        ({"token_embd.weight": None}, ["incomplete", "token_embd.weight"]),
        ({"token_embd.weight": mx.ones((200, 64))}, ["258 tokens", "for 200"]),
        ({"blk.2.attn_norm.weight": mx.ones((64,))}, ["3 blocks", "declares 2"]),
        ({"blk.0.attn_q.bias": mx.ones((64,))}, ["blk.0.attn_q.bias", "does not know"]),
    ],
)
def test_tensors_that_contradict_the_file_are_refused(
    write_gguf: Write, tmp_path: Path, tensors: dict[str, object], words: list[str]
) -> None:
    path = write_gguf(tmp_path / "odd.gguf", metadata=NO_MERGES, tensors=tensors)
    with pytest.raises(ModelError) as refused:
        load_language_model(path)
    assert all(word in refused.value.message for word in words), refused.value.message
    assert refused.value.remedy


def test_embeddings_may_have_more_rows_than_there_are_tokens(
    write_gguf: Write, tmp_path: Path
) -> None:
    rows = {"token_embd.weight": mx.ones((300, 64))}
    loaded = load_language_model(
        write_gguf(tmp_path / "padded.gguf", metadata=NO_MERGES, tensors=rows)
    )
    assert loaded.config["vocab_size"] == 300


LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


def frequency_factors(dims: int, base: float) -> list[float]:
    """Return what Llama 3.1's scaling divides each rotary frequency by.

    From the definition of rope_scaling llama3 in transformers: waves shorter than a quarter of the
    original context stay, waves longer than it are slowed by ``factor``, others in between.
    """
    factors = []
    for index in range(0, dims, 2):
        turns = 256 / (2 * math.pi * base ** (index / dims))
        smooth = min(max((turns - 1) / (4 - 1), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / 8 + smooth))
    return factors


def test_frequency_factors_do_what_llama_3_scaling_does(
    write_gguf: Write, tiny_model: Path, tmp_path: Path
) -> None:
    factors = frequency_factors(16, 10000.0)
    assert factors[0] == 1
    assert any(1 < factor < 8 for factor in factors)
    assert factors[-1] == 8
    loaded = load_language_model(
        write_gguf(
            tmp_path / "l3.gguf",
            metadata=NO_MERGES,
            tensors={"rope_freqs.weight": mx.array(factors)},
        )
    )
    folder = Path(shutil.copytree(tiny_model, tmp_path / "folder"))
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": LLAMA3_SCALING}))
    tokens = mx.array([[(7 * place) % 258 for place in range(300)]])
    expected = load_language_model(folder).model(tokens)
    assert mx.allclose(loaded.model(tokens), expected, rtol=1e-4, atol=1e-5)
    plain = load_language_model(tiny_model).model(tokens)
    assert not mx.allclose(plain, expected, rtol=1e-3, atol=1e-4)


def test_a_cache_continues_scaled_positions(write_gguf: Write, tmp_path: Path) -> None:
    tensors = {"rope_freqs.weight": mx.array(frequency_factors(16, 10000.0))}
    network = load_language_model(
        write_gguf(tmp_path / "l3.gguf", metadata=NO_MERGES, tensors=tensors)
    ).model
    tokens = mx.array([[3, 9, 27, 81, 5, 15]])
    cache = make_prompt_cache(network)
    network(tokens[:, :5], cache=cache)
    last = network(tokens[:, 5:], cache=cache)[:, -1]
    assert mx.allclose(last, network(tokens)[:, -1], rtol=1e-4, atol=1e-5)


def test_factors_that_no_publisher_gives_cannot_be_written(
    write_gguf: Write, tmp_path: Path
) -> None:
    tensors = {"rope_freqs.weight": mx.array(frequency_factors(16, 10000.0))}
    source = open_gguf(write_gguf(tmp_path / "l3.gguf", metadata=NO_MERGES, tensors=tensors))
    assert source.unwritable is not None
    assert "rope_freqs.weight" in source.unwritable
    assert "rope_scaling" not in source.config


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("dims", [64, 128])
def test_published_factors_are_recognised(factor: float, dims: int) -> None:
    published = dict(LLAMA3_SCALING, factor=factor, original_max_position_embeddings=8192)
    waves = Llama3RoPE(dims, base=500000.0, scaling_config=published)
    bases = 500000.0 ** (np.arange(0, dims, 2) / dims)
    factors = (np.array(waves._freqs) / bases).astype(np.float32)
    assert llama3_scaling(factors, dims, 500000.0) == published
    assert llama3_scaling(factors * 1.001, dims, 500000.0) is None
    assert llama3_scaling(factors, dims, 10000.0) is None


@pytest.mark.parametrize("metadata", [{}, {"llama.rope.scaling.type": "linear"}])
def test_frequency_factors_that_do_not_fit_are_refused(
    write_gguf: Write, tmp_path: Path, metadata: dict[str, object]
) -> None:
    count = 8 if metadata else 7
    path = write_gguf(
        tmp_path / "odd.gguf",
        metadata=NO_MERGES | metadata,
        tensors={"rope_freqs.weight": mx.ones((count,))},
    )
    with pytest.raises(ModelError, match=r"rope_freqs\.weight .* do not go together"):
        load_language_model(path)


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("I'LL see 12345 cats", ["I", "'LL", "Ġsee", "Ġ", "123", "45", "Ġcats"]),
        ("a  b\n\n  c!?\n", ["a", "Ġ", "Ġb", "ĊĊ", "Ġ", "Ġc", "!?Ċ"]),
    ],
)
def test_llama_3_cuts_as_its_pattern_says(
    write_gguf: Write, tmp_path: Path, text: str, cuts: list[str]
) -> None:
    letters = sorted(ByteLevel.alphabet())
    tokens = ["<s>", "</s>", *dict.fromkeys([*letters, *cuts])]
    metadata = NO_MERGES | {
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": mx.array([3, 3, *[1] * (len(tokens) - 2)], dtype=mx.int32),
    }
    rows = {"token_embd.weight": mx.zeros((len(tokens), 64))}
    loaded = load_language_model(
        write_gguf(tmp_path / "l3.gguf", metadata=metadata, tensors=rows)
    ).tokenizer
    # Each cut is in the vocabulary, so it is one token although there are no merges.
    assert loaded.convert_ids_to_tokens(loaded.encode(text)) == ["<s>", *cuts]
    assert loaded.decode(loaded.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("kept", [0, 3, 20, 40, 2000, 100_000])
def test_a_truncated_file_is_refused(write_gguf: Write, tmp_path: Path, kept: int) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", metadata=NO_MERGES)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"complete"):
        load_language_model(path)


def test_an_unknown_version_is_refused(write_gguf: Write, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 9)
    path.write_bytes(data)
    with pytest.raises(ModelError, match="version 9"):
        load_language_model(path)


def test_rows_that_are_no_whole_blocks_are_refused(write_gguf: Write, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", metadata=NO_MERGES)
    name = b"blk.0.attn_norm.weight"
    data = bytearray(path.read_bytes())
    place = data.index(name) + len(name) + 4 + 8  # after its one dimension: the type
    data[place : place + 4] = struct.pack("<I", 14)
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"blk\.0\.attn_norm\.weight .* whole blocks of Q6_K"):
        load_language_model(path)


def test_a_type_that_is_unknown_is_refused_with_those_that_are_known(
    write_gguf: Write, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", metadata=NO_MERGES)
    name = b"blk.0.attn_norm.weight"
    data = bytearray(path.read_bytes())
    place = data.index(name) + len(name) + 4 + 8
    data[place : place + 4] = struct.pack("<I", 77)
    path.write_bytes(data)
    with pytest.raises(ModelError, match="the ggml type number 77") as refused:
        load_language_model(path)
    assert "Q6_K" in str(refused.value.remedy)


def test_two_tensors_of_one_name_are_refused(write_gguf: Write, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", metadata=NO_MERGES)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"blk.1.ffn_norm.weight", b"blk.0.ffn_norm.weight", 1))
    with pytest.raises(ModelError, match="two tensors of one name"):
        load_language_model(path)


def test_arrays_of_the_metadata_are_read_where_asked_for(write_gguf: Write, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", metadata=NO_MERGES)
    assert "tokenizer.ggml.tokens" not in read_gguf_header(path).metadata
    header = read_gguf_header(path, arrays=True)
    assert len(header.metadata["tokenizer.ggml.tokens"]) == 258
    assert header.metadata["tokenizer.ggml.token_type"][:3].tolist() == [3, 3, 1]
    assert header.tensors == read_gguf_header(path).tensors


def test_the_daemon_takes_the_architectures_that_the_engine_reads() -> None:
    assert tuple(ARCHITECTURES) == GGUF_ARCHITECTURES


def test_names_are_matched_exactly() -> None:
    assert mlx_name(LLAMA, "blk.11.attn_q.weight") == "model.layers.11.self_attn.q_proj.weight"
    assert mlx_name(LLAMA, "output.weight") == "lm_head.weight"
    assert mlx_name(PHI2, "output_norm.bias") == "model.final_layernorm.bias"
    for name in (
        "blk.1.attn_qkv.weight",
        "xblk.1.attn_q.weight",
        "output.scales",
        "blk.a",
        "blk.01.attn_q.weight",
    ):
        assert mlx_name(LLAMA, name) is None


def test_rows_of_each_head_go_from_pairs_to_halves() -> None:
    rows = mx.array([0, 2, 1, 3, 4, 6, 5, 7])[:, None]
    assert split_halves(rows, 2)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
