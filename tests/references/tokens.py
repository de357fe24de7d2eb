"""What transformers' CLIP tokenizer makes of strings that go wrong easily."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from workers.diffusion.clip_vocabulary import clip_vocabulary

Described = dict[str, Any]

TEXTS = (
    "",
    " ",
    "a",
    "a red circle left of a blue square",
    "  two  leading,   three inside and two trailing  ",
    "line\nbreaks\r\nand\ttabs",
    "no\u00a0break\u2003em\u3000ideographic\u200bzero-width",
    "A Red CIRCLE",
    "İstanbul ẞ straße ΣΑΣ ǅ",
    "the cat's whiskers",
    "it's isn't we've they're you'll I'd I'm",
    "IT'S ISN'T WE'VE THEY'RE YOU'LL I'D I'M",
    "the cat\u2019s whiskers",
    "'s 't '' 'tis o'clock rock'n'roll",
    "4k, 8k, 1920x1080, 3.14, 10,000",
    "2024-01-31 12:30",
    "½ ² ٣ Ⅷ 七",
    "hello, world!",
    "wow!!! really?! (yes) [no] {maybe} <b>bold</b>",
    "!",
    "a ! b!c !d",
    "(masterpiece:1.2), [ugly], ((best quality))",
    "semi;colon co:lon - dash \u2013 en — em … dots...",
    '"quoted" „quoted“ «quoted» `code`',
    "a/b\\c|d_e#f@g$h%i^j&k*l+m=n~o",
    "under_score camelCase snake_case-kebab",
    "&amp; &lt;b&gt; &quot;x&quot; &#39;y&#39; &eacute;",
    "naïve café über señor",
    "cafe\u0301 nai\u0308ve",
    "ﬁne ﬂow Ⓐ ㍿ x²",
    "Ω Ω K Å",
    "кошка и собака",
    "γάτα και σκύλος",
    "猫と犬",
    "红色圆圈在蓝色方块的左边",
    "고양이와 개",
    "قطة وكلب",
    "बिल्ली और कुत्ता",
    "แมวและสุนัข",
    "🐱",
    "a 🐱 and a 🐶, 👩‍👩‍👧‍👦 👍🏽 🇩🇪",
    "❤️ ❤ ☃",
    "<|startoftext|>",
    "a <|endoftext|> b",
    "a<|endoftext|>b",
    "<|startoftext|>a red circle<|endoftext|>",
    "</w> a</w> w>",
    "Ġhello Ċ",
    "\x00\x01 control \x7f \x85 next",
    "\ufeffbom \ufffd replacement",
    "tab\tand\x0bvertical\x0cform",
    "\u202eright to left",
    "zalgo h̷̢̛e̶͠l̸̀l̵o̶",
    "a" * 40,
    "supercalifragilisticexpialidocious",
    "the " * 30,
    "photo of the " * 40,
    "é" * 100,
    "🐱" * 30,
    "trending on artstation, sharp focus, highly detailed, 8 k",
    "http://example.com/a?b=c&d=e",
    "C:\\Users\\cat",
    "x\u0000y",
)


def run_all(places: Mapping[str, tuple[Path, ...]]) -> Described:
    """Return the numbers of each text with begin and end, as read from the folders of each name.

    The numbers are the same whichever form of the files transformers reads; only then are they
    kept. ``clip``: with the vocabulary of the real CLIP.
    """
    described: Described = {"texts": list(TEXTS)}
    for name, forms in places.items():
        tokenizers = [CLIPTokenizer.from_pretrained(folder) for folder in forms]
        found = [_numbers(tokenizer) for tokenizer in tokenizers]
        assert all(ids == found[0] for ids in found), name
        described[name] = {"pad": tokenizers[0].pad_token_id, "ids": found[0]}
    vocabulary, merges = clip_vocabulary()
    clip = CLIPTokenizer(vocab=vocabulary, merges=merges)
    return described | {"clip": {"pad": clip.pad_token_id, "ids": _numbers(clip)}}


def _numbers(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(text, verbose=False).input_ids for text in TEXTS]
