from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.language.load import LanguageModel
from workers.language.streaming import StopTexts, TextStream

LETTERS = st.text(alphabet="ab", max_size=12)


@given(
    pieces=st.lists(LETTERS, max_size=8),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3),
)
def test_what_is_shown_ends_before_the_first_stop_however_the_text_is_cut(
    pieces: list[str], stops: list[str]
) -> None:
    whole = "".join(pieces)
    places = [whole.find(stop) for stop in stops if stop in whole]
    filter_ = StopTexts(tuple(stops))
    shown = ""
    for piece in pieces:
        shown += filter_.add(piece)
        if filter_.found:
            break
    else:
        shown += filter_.finish()
    assert filter_.found == bool(places)
    if not places:
        assert shown == whole
    else:
        assert whole.startswith(shown)
        assert not any(stop in shown for stop in stops)
        assert any(whole[len(shown) :].startswith(stop) for stop in stops)


def test_only_what_could_become_a_stop_text_is_held_back() -> None:
    stops = StopTexts(("</s>",))
    assert stops.add("a <") == "a "
    assert stops.add("b") == "<b"
    assert stops.add("</") == ""
    assert stops.finish() == "</"


@pytest.mark.parametrize(
    "text", ["plain", " leading", "trailing  ", "é漢😀 mixed\n\n", "a ,b", "\t"]
)
def test_the_pieces_joined_are_the_text(model: LanguageModel, text: str) -> None:
    prompt = model.tokenizer.encode("prompt")
    stream = TextStream(model.tokenizer, prompt)
    pieces = [stream.add(token) for token in model.tokenizer.encode(text)]
    assert "".join([*pieces, stream.finish()]) == text


def test_half_a_character_is_held_back(model: LanguageModel) -> None:
    stream = TextStream(model.tokenizer, [])
    pieces = [stream.add(token) for token in model.tokenizer.encode("a😀b")]
    assert [piece for piece in pieces if piece] == ["a", "😀", "b"]


def test_garbage_is_not_held_back_for_ever(model: LanguageModel) -> None:
    continuation = model.tokenizer.encode("é")[1]
    stream = TextStream(model.tokenizer, [])
    shown = "".join(stream.add(continuation) for _ in range(40))
    assert len(shown + stream.finish()) == 40
    assert len(shown) == 32


def test_a_broken_character_at_the_end_is_shown_as_one(model: LanguageModel) -> None:
    stream = TextStream(model.tokenizer, [])
    shown = "".join(stream.add(token) for token in model.tokenizer.encode("a😀")[:-1])
    assert shown + stream.finish() == "a\ufffd"
