"""Models in ``weights.npz`` as MLX's examples of 2023 and 2024 wrote them; broken ones are refused.

``test_formats_agree`` has their logits.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from daemon.errors import ModelError
from tests.conftest import write_tiny_tokenizer
from tests.unit.language.original_cases import (
    CASES,
    TOKENS,
    expected_logits,
    known_name,
    known_weights,
    release_weights,
)
from tests.unit.language.release_files import write_npz, write_params
from workers.language.formats import estimate_bytes, find_model_files, fingerprint
from workers.language.load import LanguageModel, load_language_model
from workers.language.npz_archive import open_npz
from workers.language.originals.network import Network, open_release

LINEAR = ("wq", "wk", "wv", "wo", "w1", "w2", "w3", "output")
WQ = "layers.0.attention.wq.weight"


def opened(folder: Path) -> Network:
    return open_release(find_model_files(folder))


def loaded(folder: Path) -> LanguageModel:
    write_tiny_tokenizer(folder)
    return load_language_model(folder)


def logits(folder: Path) -> np.ndarray:
    return np.array(loaded(folder).model(mx.array(TOKENS)))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        opened(folder)
    assert refused.value.remedy
    return refused.value.message


def save_mlx(folder: Path, arrays: dict[str, mx.array]) -> None:
    mx.savez(str(folder / "weights.npz"), **arrays)


def quantised(arrays: dict[str, np.ndarray], layers: tuple[str, ...]) -> dict[str, mx.array]:
    """Quantise the matrices of ``layers`` to 4 bits as the examples did, in float16."""
    found: dict[str, mx.array] = {}
    for name, array in arrays.items():
        stem = name.removesuffix(".weight")
        half = mx.array(array).astype(mx.float16)
        if stem.split(".")[-1] in layers:
            packed, scales, biases = mx.quantize(half, group_size=32, bits=4)
            found |= {name: packed, f"{stem}.scales": scales, f"{stem}.biases": biases}
        else:
            found[name] = half
    return found


def dequantised(arrays: dict[str, mx.array]) -> dict[str, mx.array]:
    """Return the numbers that quantised tensors stand for, float32."""
    found: dict[str, mx.array] = {}
    for name, array in arrays.items():
        stem, _, leaf = name.rpartition(".")
        wide = array.astype(mx.float32) if array.dtype != mx.uint32 else array
        if array.dtype == mx.uint32:
            scales, biases = (
                arrays[f"{stem}.{part}"].astype(mx.float32) for part in ("scales", "biases")
            )
            wide = mx.dequantize(array, scales, biases, group_size=32, bits=4)
        if leaf == "weight":
            found[name] = wide
    return found


@pytest.mark.parametrize("embeddings", [(), ("tok_embeddings",)], ids=["2023", "2024"])
def test_quantised_weights_compute_what_they_stand_for(
    tmp_path: Path, embeddings: tuple[str, ...]
) -> None:
    """The examples of 2023 left the embeddings as they were, those of 2024 quantised them, too."""
    packed = quantised(release_weights(CASES["mistral"]), (*LINEAR, *embeddings))
    declared = {"group_size": 32, "bits": 4}
    folder = write_npz(tmp_path / "packed", "mistral", quantization=declared)
    save_mlx(folder, packed)
    network, config, tensors = opened(folder)
    assert config["quantization"] == {**declared, "mode": "affine"}
    assert hasattr(network.layers[0].self_attn.q_proj, "scales")
    assert hasattr(network.model.embed_tokens, "scales") == bool(embeddings)
    assert tensors["lm_head.weight"].dtype == mx.uint32
    wide = write_npz(tmp_path / "wide", "mistral")
    save_mlx(wide, dequantised(packed))
    np.testing.assert_allclose(logits(folder), logits(wide), rtol=0, atol=1e-4)
    files = find_model_files(folder)
    assert estimate_bytes(files, float32=True) == loaded(folder).bytes
    assert estimate_bytes(files, float32=False) == sum(tensor.bytes for tensor in tensors.values())


def test_quantised_weights_with_mlx_lms_names(tmp_path: Path) -> None:
    meta = quantised(release_weights(CASES["mistral"]), LINEAR)
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")
    known = quantised(known_weights(CASES["mistral"]), (*layers, "lm_head"))
    assert {known_name(name) for name in meta} == known.keys()
    folders = []
    for kind, arrays in (("meta", meta), ("known", known)):
        folders.append(write_npz(tmp_path / kind, "mistral", known_names=kind == "known"))
        save_mlx(folders[-1], arrays)
    np.testing.assert_allclose(logits(folders[0]), logits(folders[1]), rtol=0, atol=1e-5)


def test_rows_that_are_in_halves_already_stay_so(tmp_path: Path) -> None:
    """MLX's example wrote TinyLlama with Meta's names and ``rope_traditional: false``."""
    folder = write_npz(tmp_path / "model", "llama-grouped", rope_traditional=False)
    case = CASES["llama-grouped"]
    halves = dict(zip(release_weights(case), known_weights(case).values(), strict=True))
    np.savez(folder / "weights.npz", **dict[str, Any](halves))
    expected = expected_logits("llama-grouped")
    assert np.abs(logits(folder) - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_weights_keep_the_type_that_they_are_stored_in(tmp_path: Path, dtype: Any) -> None:
    folder = write_npz(tmp_path / "model", "mistral")
    short = {
        name: mx.array(array).astype(dtype)
        for name, array in release_weights(CASES["mistral"]).items()
    }
    save_mlx(folder, short)
    network, _, tensors = opened(folder)
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    assert {array.dtype for _, array in tree_flatten(network.parameters())} == {dtype}
    read = tensors["model.embed_tokens.weight"].read()
    assert mx.array_equal(read, short["tok_embeddings.weight"])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpys_layouts(tmp_path: Path, compressed: bool, order: Any) -> None:
    arrays: dict[str, Any] = {
        "matrix": np.asarray(np.arange(12, dtype=np.float32).reshape(3, 4), order=order),
        "scalar": np.float16(2.5),
        "empty": np.zeros((0, 4), np.float32),
        "words": np.arange(5, dtype=np.uint32),
    }
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    archive = open_npz(path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(archive.read(name), array)


def test_a_tensor_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "model", "llama")
    tensors = opened(folder)[2]
    old = release_weights(CASES["llama"])["norm.weight"].tobytes()
    data = (folder / "weights.npz").read_bytes()
    assert data.count(old) == 1
    (folder / "weights.npz").write_bytes(data.replace(old, bytes(len(old))))
    assert tensors["model.norm.weight"].read().tolist() == [0.0] * 32


def test_the_fingerprint_is_of_settings_and_weights(tmp_path: Path) -> None:
    first, second = (
        fingerprint(find_model_files(write_npz(tmp_path / name, "llama"))) for name in "ab"
    )
    assert first == second
    write_params(tmp_path / "b", "llama", "config.json", norm_eps=1e-4)
    assert fingerprint(find_model_files(tmp_path / "b")) != first
    weights = release_weights(CASES["llama"])
    weights[WQ][0, 0] += 1
    np.savez(tmp_path / "a" / "weights.npz", **dict[str, Any](weights))
    assert fingerprint(find_model_files(tmp_path / "a")) != first


def test_config_json_counts_where_params_json_is_there_too(tmp_path: Path) -> None:
    """MLX's example wrote it from ``params.json`` and put the quantisation into it."""
    folder = write_npz(tmp_path / "model", "llama")
    (folder / "params.json").write_text("{}")
    assert opened(folder)[1]["hidden_size"] == 32


def test_rotary_frequencies_follow_from_the_settings(tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "model", "mistral", known_names=True)
    arrays: dict[str, Any] = known_weights(CASES["mistral"])
    arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    np.savez(folder / "weights.npz", **arrays)
    assert not any("inv_freq" in name for name in opened(folder)[2])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_heads": 8}, f"contradicts its config.json: {WQ} has the shape (64, 32)"),
        ({"n_layers": 4}, "none of its files has the tensor layers.3"),
        ({"n_layers": 2}, "has a tensor layers.2"),
        ({"n_layers": 10**9}, "tells of 1000000000 layers, and the weights have 30 tensors"),
        ({"vocab_size": 50}, "tok_embeddings.weight has the shape (48, 32)"),
        ({"dim": None}, "model/config.json is wrong: dim is missing"),
        ({"moe": {"num_experts": 8}}, "a mixture of experts"),
    ],
)
def test_settings_that_contradict_the_weights(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(write_npz(tmp_path / "model", "mistral", **changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "phi2"}, "of the architecture 'phi2'; npz weights are read of llama and"),
        ({"num_hidden_layers": 4}, "none of its files has the tensor model.layers.3"),
        ({"intermediate_size": 60}, "model.layers.0.mlp.gate_proj.weight has the shape (64, 32)"),
    ],
)
def test_hugging_face_settings_that_contradict_the_weights(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(write_npz(tmp_path / "model", "mistral", known_names=True, **changes))


@pytest.mark.parametrize("declared", [{"bits": 8}, {"group_size": 64}])
def test_a_quantisation_that_contradicts_the_weights(
    tmp_path: Path, declared: dict[str, int]
) -> None:
    quantization = {"bits": 4, "group_size": 32, **declared}
    folder = write_npz(tmp_path / "model", "mistral", quantization=quantization)
    save_mlx(folder, quantised(release_weights(CASES["mistral"]), LINEAR))
    assert f"quantised with {next(iter(declared))}" in refusal(folder)


def test_packed_words_without_scales_are_no_weights(tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "model", "mistral")
    arrays: dict[str, Any] = release_weights(CASES["mistral"])
    np.savez(folder / "weights.npz", **{**arrays, WQ: arrays[WQ].astype(np.uint32)})
    assert f"{WQ} is of the type" in refusal(folder)


def test_sizes_are_needed(tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "model", "llama")
    (folder / "config.json").unlink()
    assert "no config.json or params.json with the network's sizes" in refusal(folder)
    (folder / "config.json").write_text(json.dumps([]))
    assert "model/config.json is wrong" in refusal(folder)


def test_a_missing_file_among_others_is_named(tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "model", "llama", files=3)
    (folder / "weights.02.npz").rename(folder / "weights.03.npz")
    assert "weights.02.npz is missing" in refusal(folder)


def test_two_sets_of_weights_are_unclear(tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "model", "llama", files=2)
    (folder / "weights.npz").write_bytes(b"")
    assert "both weights.npz and weights.00.npz" in refusal(folder)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kept", [0, 10, 1000, -1000, -1])
def test_truncated_archives(tmp_path: Path, kept: int, compressed: bool) -> None:
    folder = write_npz(tmp_path / "model", "llama", compressed=compressed)
    path = folder / "weights.npz"
    path.write_bytes(path.read_bytes()[:kept])
    assert "weights.npz is not a complete archive of arrays" in refusal(folder)


def test_a_damaged_packed_array_is_refused_when_it_is_read(tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "model", "llama", compressed=True)
    path = folder / "weights.npz"
    tensors = opened(folder)[2]
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("output.weight.npy").header_offset + 2000
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"weights\.npz is not a complete archive of arrays"):
        tensors["lm_head.weight"].read()


class Call:
    """Pickles as a call of ``print``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self._path,)


def test_arrays_of_python_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "model", "llama")
    touched = tmp_path / "touched"
    arrays: dict[str, Any] = {WQ: np.array([Call(touched)], dtype=object)}
    np.savez(folder / "weights.npz", **arrays)
    message = refusal(folder)
    assert f"{WQ} holds Python objects" in message
    assert not touched.exists()
    pickle.loads(pickle.dumps(Call(touched)))
    assert touched.exists()


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as entry,
    ):
        for _ in range(17):
            entry.write(bytes(2**24))
    with pytest.raises(ModelError, match="unpack to 285,212,672, which weights do not"):
        open_npz(path)


def npy(description: str, numbers: int) -> bytes:
    """Return an entry with the given header and that many bytes of numbers."""
    header = description.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(numbers)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", 15), "a has 15 of 16"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", 17), "a has 17 of 16"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}", 16), "(-4,)"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", 16), "of the type <f8"),
        (npy("{'descr': '>f4', 'fortran_order': False, 'shape': (4,)}", 16), "of the type >f4"),
        (npy("__import__('os').system('exit')", 16), "not a complete archive of arrays"),
        (b"no array", "not a complete archive of arrays"),
        (b"\x93NUMPY\x09\x00", "unknown version"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "not a complete archive of arrays"),
    ],
)
def test_wrong_headers(tmp_path: Path, entry: bytes, reason: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", entry)
    with pytest.raises(ModelError) as refused:
        open_npz(tmp_path / "a.npz")
    assert reason in refused.value.message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3, np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(ModelError, match="two of its arrays have one name"):
        open_npz(tmp_path / "a.npz")
