"""What the filter line says: ``user:ana kind:train state:failed lora``.

The rule this module protects: whatever is typed is a filter. Half a word narrows as far as it
goes, and nothing is an error while somebody is typing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

_FIELDS: Mapping[str, Callable[[JobLine], str]] = {
    "user": lambda job: job["user"],
    "kind": lambda job: job["kind"],
    "state": lambda job: job["state"],
    "model": lambda job: job["model"] or "",
    "priority": lambda job: job["priority"],
}
FIELDS = tuple(_FIELDS)


@dataclass(frozen=True, kw_only=True)
class Query:
    """A parsed filter: for each field the beginnings of which one must fit; all of the words."""

    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    mine: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether every job passes."""
        return not (self.fields or self.words or self.mine)

    def matches(self, job: JobLine) -> bool:
        """Say whether the job passes."""
        if self.mine and not job["mine"]:
            return False
        for name, beginnings in self.fields.items():
            if not _FIELDS[name](job).casefold().startswith(beginnings):
                return False
        if not self.words:
            return True
        text = _text(job)
        return all(word in text for word in self.words)


def parse_query(text: str, *, mine: bool = False) -> Query:
    """Parse the filter line. Several values of one field are alternatives, words are added up."""
    fields: dict[str, tuple[str, ...]] = {}
    words: list[str] = []
    for part in text.casefold().split():
        name, colon, value = part.partition(":")
        if not colon or name not in _FIELDS:
            words.append(part)
        elif value:
            fields[name] = (*fields.get(name, ()), *filter(None, value.split(",")))
    wanted = {name: values for name, values in fields.items() if values}
    return Query(fields=wanted, words=tuple(words), mine=mine)


def _text(job: JobLine) -> str:
    """Return everything of a job that a person may look for."""
    error = (job["error"] or {}).get("message") or ""
    parts = (
        f"#{job['id']}",
        job["name"] or "",
        job["kind"],
        job["user"],
        job["state"],
        job["model"] or "",
        job["reason"] or "",
        error,
    )
    return " ".join(parts).casefold()
