"""The text in a picture is what other tools read, and its JSON is enough to repeat it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from daemon import __version__
from workers.diffusion import metadata
from workers.diffusion.metadata import LoraFact, PictureFacts

SPEC: dict[str, Any] = {
    "prompt": "a red circle left of a blue square",
    "negative_prompt": None,
    "model": "shapes",
    "steps": 25,
    "sampler": "euler-a",
    "cfg": 7.5,
    "seed": 40,
    "image": None,
    "strength": 0.7,
}


def facts(*, loras: tuple[LoraFact, ...] = (), **spec: Any) -> PictureFacts:
    return PictureFacts(
        spec={**SPEC, **spec},
        index=2,
        seed=42,
        width=512,
        height=768,
        fingerprint="0123456789abcdef",
        packages={"mlx": "0.32.4"},
        loras=loras,
    )


def parsed(text: str) -> tuple[str, str, dict[str, str]]:
    """Read A1111's text by its rules: the last line is settings, values may be JSON strings."""
    *lines, settings = text.strip().split("\n")
    prompt: list[str] = []
    negative: list[str] = []
    into = prompt
    for raw in lines:
        line = raw.strip()
        if line.startswith("Negative prompt:"):
            into, line = negative, line.removeprefix("Negative prompt:").strip()
        into.append(line)
    return "\n".join(prompt), "\n".join(negative), dict(_pairs(settings))


def _pairs(settings: str) -> list[tuple[str, str]]:
    found = []
    decoder = json.JSONDecoder()
    while settings:
        key, settings = settings.split(": ", 1)
        assert re.fullmatch(r"\w[\w \-/]+", key)
        if settings.startswith('"'):
            value, end = decoder.raw_decode(settings)
        else:
            end = settings.find(",") if "," in settings else len(settings)
            value = settings[:end]
        found.append((key, value))
        settings = settings[end:].removeprefix(",").strip()
    return found


def test_the_text_has_prompt_and_settings() -> None:
    prompt, negative, settings = parsed(metadata.parameters_text(facts()))
    assert prompt == SPEC["prompt"]
    assert negative == ""
    assert settings == {
        "Steps": "25",
        "Sampler": "Euler a",
        "CFG scale": "7.5",
        "Seed": "42",
        "Size": "512x768",
        "Model hash": "0123456789",
        "Model": "shapes",
        "Version": f"studioq {__version__}",
    }


def test_a_negative_prompt_lines_strength_and_lora_files_are_there_too() -> None:
    loras = (
        LoraFact(name="ink, wash: v2.safetensors", scale=0.8, hash="aaaabbbbcccc"),
        LoraFact(name="line.safetensors", scale=-1.0, hash="ddddeeeeffff"),
    )
    text = metadata.parameters_text(
        facts(
            loras=loras,
            prompt="one\ntwo",
            negative_prompt="blurry, dark",
            image={"name": "a.png"},
            cfg=0.0,
        )
    )
    prompt, negative, settings = parsed(text)
    assert prompt == "one\ntwo <lora:ink_wash_v2:0.8> <lora:line:-1>"
    assert negative == "blurry, dark"
    assert settings["Denoising strength"] == "0.7"
    assert settings["CFG scale"] == "0"
    assert settings["Lora hashes"] == "ink_wash_v2: aaaabbbbcccc, line: ddddeeeeffff"


def test_every_sampler_has_the_name_that_others_know() -> None:
    assert {
        name: parsed(metadata.parameters_text(facts(sampler=name)))[2]["Sampler"]
        for name in ("ddim", "euler", "euler-a", "dpm++2m", "dpm++2m-karras", "lcm")
    } == {
        "ddim": "DDIM",
        "euler": "Euler",
        "euler-a": "Euler a",
        "dpm++2m": "DPM++ 2M",
        "dpm++2m-karras": "DPM++ 2M Karras",
        "lcm": "LCM",
    }


LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1)
    .map(str.strip)
    .filter(lambda line: line and not line.startswith("Negative prompt:")),
    min_size=1,
    max_size=3,
).map("\n".join)


@given(prompt=LINES, negative=LINES)
def test_any_prompt_comes_back_from_the_text_and_from_the_file(prompt: str, negative: str) -> None:
    made = facts(prompt=prompt, negative_prompt=negative)
    file = io.BytesIO()
    info = metadata.png_info(metadata.text_chunks(made))
    Image.new("RGB", (8, 8)).save(file, format="PNG", pnginfo=info)
    with Image.open(file) as image:
        chunks = dict(image.text)  # type: ignore[attr-defined]
    assert parsed(chunks["parameters"])[:2] == (prompt, negative)
    assert json.loads(chunks["studioq"])["spec"]["prompt"] == prompt


def save(path: Path, made: PictureFacts | None) -> Path:
    chunks = metadata.text_chunks(made) if made else {}
    Image.new("RGB", (8, 8)).save(path, pnginfo=metadata.png_info(chunks))
    return path


def test_the_record_says_everything(tmp_path: Path) -> None:
    made = facts(negative_prompt="日本\u0000")
    path = save(tmp_path / "a.png", made)
    assert metadata.read_record(path) == {
        "version": __version__,
        "spec": dict(made.spec),
        "image": {"index": 2, "seed": 42, "width": 512, "height": 768},
        "model_fingerprint": "0123456789abcdef",
        "packages": {"mlx": "0.32.4"},
    }


@pytest.mark.parametrize(("prompt", "kind"), [("café", b"tEXt"), ("日本 🎈", b"iTXt")])
def test_latin_text_is_stored_plainly_and_other_text_as_utf8(
    tmp_path: Path, prompt: str, kind: bytes
) -> None:
    path = save(tmp_path / "a.png", facts(prompt=prompt))
    assert kind + b"parameters\0" in path.read_bytes()
    assert metadata.read_chunks(path)["parameters"].startswith(prompt)


def test_without_metadata_there_are_no_chunks(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", None)
    assert metadata.read_chunks(path) == {}
    assert metadata.read_record(path) is None
    assert not re.search(rb"tEXt|iTXt|zTXt|eXIf|tIME", path.read_bytes())


def test_what_a_chunk_cannot_hold_is_replaced() -> None:
    text = metadata.parameters_text(facts(prompt="a\0b\ud800c"))
    assert text.startswith("a\ufffdb?c\n")


def test_a_lora_is_known_by_its_tensors_alone(tmp_path: Path) -> None:
    tensors = b"tensors" * 100
    for name, header in (("a", b"{}"), ("b", b'{"__metadata__":{"note":"renamed"}}')):
        (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header + tensors)
    expected = hashlib.sha256(tensors).hexdigest()[:12]
    assert metadata.lora_hash(tmp_path / "a") == metadata.lora_hash(tmp_path / "b") == expected


def test_facts_of_the_next_picture_differ_in_number_and_seed_only() -> None:
    following = dataclasses.replace(facts(), index=3, seed=43)
    assert json.loads(metadata.record_text(following))["image"]["seed"] == 43
