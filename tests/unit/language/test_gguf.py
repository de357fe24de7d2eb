from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from daemon.errors import ModelError
from workers.language.gguf import mlx_name, split_halves
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
        ({"general.architecture": "qwen2"}, ["'qwen2'", "llama"]),
        ({"llama.expert_count": mx.array(8, dtype=mx.uint32)}, ["8 experts"]),
        ({"llama.rope.scaling.type": "yarn"}, ["'yarn'"]),
        ({"llama.block_count": None}, ["llama.block_count"]),
        ({"tokenizer.ggml.tokens": None}, ["no tokenizer"]),
        ({"tokenizer.ggml.model": "llama"}, ["'llama'", "byte-level BPE"]),
        ({"tokenizer.ggml.pre": "tekken"}, ["'tekken'", "smollm"]),
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
        tmp_path / "odd.gguf", metadata=NO_MERGES, tensors={"rope_freqs.weight": mx.ones((8,))}
    )
    with pytest.raises(ModelError, match=r"rope_freqs\.weight"):
        load_language_model(path)


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


def test_names_are_matched_exactly() -> None:
    assert mlx_name("blk.11.attn_q.weight") == "model.layers.11.self_attn.q_proj.weight"
    assert mlx_name("output.scales") == "lm_head.scales"
    for name in ("blk.1.attn_qkv.weight", "xblk.1.attn_q.weight", "output_norm.bias", "blk.a"):
        assert mlx_name(name) is None


def test_rows_of_each_head_go_from_pairs_to_halves() -> None:
    rows = mx.array([0, 2, 1, 3, 4, 6, 5, 7])[:, None]
    assert split_halves(rows, 2)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
