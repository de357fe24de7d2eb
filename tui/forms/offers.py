"""What a field can offer while one types: models, jobs, paths.

The rule this module protects: an offer is a help and never a limit; what is typed counts, whether
it was offered or not. Folders are read in a thread, and only so much of them as can be shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tui.forms.shapes import Control

# Entries of a folder that are looked at, and offers that are shown.
_LOOKED_AT = 5_000
MOST = 200

# What a kind needs, where the model's format tells; kinds that are not named here may use any.
_IMAGE_FORMATS = frozenset({"diffusers", "single-file"})
_LANGUAGE_FORMATS = frozenset({"gguf", "hf", "mlx", "npz", "original"})
_WRONG = {
    "train": _IMAGE_FORMATS,
    "infer": _IMAGE_FORMATS,
    "convert": _IMAGE_FORMATS,
    "diffuse": _LANGUAGE_FORMATS,
}
_NO_USE = frozenset({"unusable", "failed"})

_PATHS = frozenset({Control.FILE, Control.FILES, Control.DATA, Control.LORAS})


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A text that may be taken over, and what there is to know of it."""

    text: str
    about: str = ""


Source = Callable[[str], Sequence[Offer]]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the daemon had when the form was opened."""

    models: Sequence[Mapping[str, Any]] = ()
    trained: Sequence[Mapping[str, Any]] = ()
    jobs: Sequence[Mapping[str, Any]] = ()


def source_of(control: Control, kind: str, known: Known) -> Source | None:
    """Return where the offers of a field come from; None: it has none."""
    if control is Control.MODEL:
        return _among(model_offers(known.models, kind))
    trained = [_reference(job) for job in known.trained]
    if control is Control.JOB:
        return _among(trained)
    if control is Control.ADAPTER:
        return lambda text: [*_among(trained)(text), *([] if not text else path_offers(text))]
    if control is Control.JOBS:
        return lambda text: _last(text, known.jobs)
    return path_offers if control in _PATHS else None


def model_offers(models: Iterable[Mapping[str, Any]], kind: str) -> list[Offer]:
    """Return the models that a job of ``kind`` can use, as far as their formats tell."""
    wrong = _WRONG.get(kind, frozenset())
    return [
        Offer(text=str(model["name"]), about=_about_model(model))
        for model in models
        if model["format"] not in wrong and model["state"] not in _NO_USE
    ]


def path_offers(text: str) -> list[Offer]:
    """Return the paths that begin so, folders first; hidden ones only where a dot was typed."""
    folder, slash, begin = text.rpartition("/")
    shown = f"{folder}{slash}"
    try:
        place = Path(shown or ".").expanduser()
        with os.scandir(place) as entries:
            found = [
                (not entry.is_dir(), entry.name)
                for entry in islice(entries, _LOOKED_AT)
                if entry.name.startswith(begin) and (begin or not entry.name.startswith("."))
            ]
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~name of nobody
        return []
    return [
        Offer(text=f"{shown}{name}" if is_file else f"{shown}{name}/")
        for is_file, name in sorted(found)[:MOST]
    ]


def _among(offers: Sequence[Offer]) -> Source:
    def matching(text: str) -> list[Offer]:
        """Return those that begin with the text, then those that have it inside."""
        sought = text.strip().casefold()
        inside = [offer for offer in offers if sought in f"{offer.text} {offer.about}".casefold()]
        begins = lambda offer: not offer.text.casefold().startswith(sought)  # noqa: E731
        return sorted(inside, key=begins)[:MOST]

    return matching


def _last(text: str, jobs: Sequence[Mapping[str, Any]]) -> list[Offer]:
    """Return offers for the last of several numbers; the others stay as they are."""
    typed = len(text) - len(text.rstrip("0123456789"))
    before, last = (text[:-typed], text[-typed:]) if typed else (text, "")
    if before and not before.endswith((",", " ")):
        return []
    taken = before.replace(",", " ").split()
    return [
        Offer(text=f"{before}{job['id']}", about=_about_job(job))
        for job in jobs
        if str(job["id"]).startswith(last) and str(job["id"]) not in taken
    ][:MOST]


def _reference(job: Mapping[str, Any]) -> Offer:
    return Offer(text=f"job:{job['id']}", about=_about_job(job))


def _about_job(job: Mapping[str, Any]) -> str:
    said = (job["state"], job["kind"], job["name"], job["model"], job["user"])
    return " · ".join(str(word) for word in said if word)


def _about_model(model: Mapping[str, Any]) -> str:
    from daemon.cli.units import count

    size = count(model["parameters"])
    fits = {"tight": "fits tightly", "no": "does not fit"}.get(str(model["fits"]))
    state = None if model["state"] == "ready" else model["state"]
    said = (model["format"], f"{size} parameters" if size else None, state, fits)
    return " · ".join(str(word) for word in said if word)
