"""What lies beside a ``tokenizer.model``, on Mistral's own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }}[/INST]"
    "{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
TURNS = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]


@pytest.mark.parametrize("form", ["jinja", "text", "named"])
def test_a_chat_template_is_read_from_wherever_it_lies(
    configure: Callable[..., Any], spm_folder: Path, mistral: Any, form: str
) -> None:
    named = [{"name": "default", "template": MISTRAL_TEMPLATE}, {"name": "rag", "template": "no"}]
    if form == "jinja":
        (spm_folder / "chat_template.jinja").write_text(MISTRAL_TEMPLATE)
    given = {"jinja": "overruled", "text": MISTRAL_TEMPLATE, "named": named}[form]
    tokenizer = configure(spm_folder, legacy=False, chat_template=given)
    assert tokenizer.has_chat_template
    inst, end = mistral.piece_to_id("[INST]"), mistral.piece_to_id("[/INST]")
    expected = [1, inst, *mistral.encode("a b"), end, *mistral.encode("c"), 2]
    assert tokenizer.apply_chat_template(TURNS) == expected


def test_text_after_a_special_token_is_a_new_text_unless_the_folder_says_no(
    configure: Callable[..., Any], spm_folder: Path, mistral: Any
) -> None:
    text, (start, rest) = "<s>a[REFERENCE_DOC_0]b", (1, mistral.encode("a[REFERENCE_DOC_0]b"))
    assert configure(spm_folder).encode(text, add_special_tokens=False) == [start, *rest]
    bare = configure(spm_folder, legacy=False).encode(text, add_special_tokens=False)
    assert [mistral.id_to_piece(token) for token in bare] == ["<s>", "a", "[REFERENCE_DOC_0]", "b"]


def test_no_space_goes_before_the_text_where_the_folder_says_so(
    configure: Callable[..., Any], spm_folder: Path
) -> None:
    tokenizer = configure(spm_folder, add_prefix_space=False)
    for text in ("the", " the"):
        tokens = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(tokens) == text


def test_the_frame_of_a_text_is_what_the_folder_says(
    configure: Callable[..., Any], spm_folder: Path, mistral: Any
) -> None:
    plain = mistral.encode("a")
    assert configure(spm_folder, add_bos_token=False).encode("a") == plain
    assert configure(spm_folder, add_eos_token=True).encode("a") == [1, *plain, 2]
    assert configure(spm_folder, bos_token=None).encode("a") == plain


def test_roles_come_from_the_newer_file_then_the_older_then_the_model(
    configure: Callable[..., Any], spm_folder: Path
) -> None:
    (spm_folder / "special_tokens_map.json").write_text(
        '{"eos_token": {"content": "[/INST]"}, "pad_token": "<unk>"}'
    )
    tokenizer = configure(spm_folder, eos_token="[INST]")
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "[INST]")
    assert (tokenizer.unk_token, tokenizer.pad_token) == ("<unk>", "<unk>")
    assert tokenizer.eos_token_ids == {tokenizer.convert_tokens_to_ids("[INST]")}


@pytest.mark.parametrize("legacy", [True, False])
def test_added_tokens_follow_the_models_own(
    configure: Callable[..., Any], spm_folder: Path, mistral: Any, legacy: bool
) -> None:
    (spm_folder / "added_tokens.json").write_text('{"<|im_end|>": 32769, "<tool>": 32768}')
    added = {"32769": {"content": "<|im_end|>", "special": True}, "1": {"content": "<s>"}}
    tokenizer = configure(
        spm_folder, added_tokens_decoder=added, eos_token="<|im_end|>", legacy=legacy
    )
    assert len(tokenizer) == 32770
    found = tokenizer.encode("a<tool><|im_end|>", add_special_tokens=False)
    assert found == [*mistral.encode("a"), 32768, 32769]
    assert tokenizer.decode(found) == "a<tool><|im_end|>"
    assert tokenizer.decode(found, skip_special_tokens=True) == "a<tool>"
    assert tokenizer.eos_token_ids == {32769}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eos_token": "<|end|>"}, ["copy", "eos_token", "'<|end|>'", "does not have"]),
        ({"added_tokens_decoder": {"2": {"content": "<e>"}}}, ["token 2", "'<e>'", "'</s>'"]),
        ({"added_tokens_decoder": {"32769": {"content": "<e>"}}}, ["32769", "none", "32768"]),
        ({"added_tokens_decoder": {"32768": {"content": "<s>"}}}, ["'<s>'", "32768"]),
        ({"added_tokens_decoder": {"-1": {"content": "<e>"}}}, ["'<e>'", "-1"]),
        ({"added_tokens_decoder": {"x": {"content": "<e>"}}}, ["added tokens", "'x'"]),
        ({"added_tokens_decoder": {"32767": {"content": "梦"}}}, ["'梦'", "ordinary piece"]),
        ({"added_tokens_decoder": 3}, ["added tokens cannot be read"]),
        ({"chat_template": [{"name": "default"}]}, ["chat template", "'template'"]),
        ([], ["tokenizer_config.json is no JSON object"]),
    ],
)
def test_settings_that_contradict_the_model_are_refused(
    refusal: Callable[[Path], str], spm_folder: Path, settings: Any, words: list[str]
) -> None:
    (spm_folder / "tokenizer_config.json").write_text(json.dumps(settings))
    message = refusal(spm_folder)
    assert all(word in message for word in words), message


def test_settings_that_are_no_json_are_refused(
    refusal: Callable[[Path], str], spm_folder: Path
) -> None:
    (spm_folder / "tokenizer_config.json").write_text("{")
    assert "tokenizer_config.json cannot be read" in refusal(spm_folder)
