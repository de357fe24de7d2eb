"""Training rows for ``studioq demo``: questions about tables, and the SQL that answers them.

The rule this module protects: the demo needs nothing from the network but its model, and the same
seed writes the same bytes. The grammar is that of WikiSQL (a table, its columns, a question, a
query); tables and questions are this project's own. Standard library only.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAIN_ROWS = 160
VALID_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: its columns, the first of which names a row; values to ask about by column."""

    name: str
    columns: tuple[str, ...]
    values: dict[str, tuple[str, ...]]


TABLES = (
    Table(
        name="rivers",
        columns=("River", "Country", "Length", "Mouth"),
        values={
            "River": ("Loire", "Elbe", "Ebro", "Tagus", "Danube", "Volga"),
            "Country": ("France", "Spain", "Portugal", "Romania"),
            "Mouth": ("Atlantic", "North Sea", "Black Sea"),
        },
    ),
    Table(
        name="players",
        columns=("Player", "Team", "Position", "Goals"),
        values={
            "Player": ("Ana Silva", "Tom Reed", "Kim Lee", "Eva Novak", "Max Braun"),
            "Team": ("Rovers", "United", "Wanderers", "City"),
            "Position": ("Goalkeeper", "Defender", "Forward"),
        },
    ),
    Table(
        name="films",
        columns=("Title", "Director", "Year", "Genre"),
        values={
            "Title": ("Night Train", "The Orchard", "Blue Harbor", "Last Signal"),
            "Director": ("Ida Holm", "Paul Roche", "Mei Tan"),
            "Genre": ("Drama", "Comedy", "Western"),
            "Year": ("1961", "1984", "2003"),
        },
    ),
    Table(
        name="trains",
        columns=("Train", "From", "To", "Departure", "Platform"),
        values={
            "Train": ("IC 204", "RE 17", "EC 9", "S 42"),
            "From": ("Vienna", "Basel", "Milan"),
            "To": ("Paris", "Prague", "Hamburg"),
            "Platform": ("3", "7", "12"),
        },
    ),
    Table(
        name="books",
        columns=("Book", "Author", "Pages", "Publisher"),
        values={
            "Book": ("Salt Roads", "A Quiet Map", "Ten Winters", "The Glass Mill"),
            "Author": ("Nora Field", "Luis Prado", "Jan Vos"),
            "Publisher": ("Lantern", "Northgate", "Marble"),
        },
    ),
    Table(
        name="planets",
        columns=("Planet", "Moons", "Diameter", "Discovered"),
        values={
            "Planet": ("Mars", "Saturn", "Neptune", "Venus"),
            "Moons": ("2", "14", "27"),
            "Discovered": ("1781", "1846"),
        },
    ),
    Table(
        name="airports",
        columns=("Airport", "City", "Code", "Runways"),
        values={
            "Airport": ("Schiphol", "Heathrow", "Haneda", "Changi"),
            "City": ("Tokyo", "London", "Oslo"),
            "Code": ("AMS", "OSL", "HND"),
        },
    ),
    Table(
        name="songs",
        columns=("Song", "Artist", "Album", "Weeks"),
        values={
            "Song": ("Slow Rain", "Paper Moon", "Golden Hour", "Static"),
            "Artist": ("The Larks", "Ines Ray", "Oak and Iron"),
            "Album": ("Harvest", "Signals", "Low Tide"),
        },
    ),
)

_QUESTIONS = (
    "What is the {asked} when the {known} is {value}?",
    "Which {asked} has the {known} {value}?",
    "Tell me the {asked} for the {known} {value}.",
    "What {asked} belongs to the {known} {value}?",
    "Name the {asked} with {known} {value}.",
)
_COUNTS = (
    "How many {asked} entries have the {known} {value}?",
    "Count the {asked} entries whose {known} is {value}.",
)
_COUNTED_SHARE = 0.15

# What the demo asks: of a table that no training row has.
QUESTION = (
    "table: mountains\n"
    "columns: Mountain, Country, Height, First ascent\n"
    "Q: What is the Height when the Mountain is Eiger?\n"
    "A:"
)

# Options of the demo's jobs; model, data, prompt and adapter are added to them.
TRAINING: dict[str, Any] = {
    "iters": 20,
    "batch_size": 4,
    "learning_rate": 5e-4,
    "num_layers": 8,
    "rank": 8,
    "scale": 10.0,
    "mask_prompt": True,
    "steps_per_report": 4,
    "steps_per_eval": 20,
    "val_batches": -1,
    "save_every": 10,
    "seed": 7,
}
INFERENCE: dict[str, Any] = {"max_tokens": 40, "seed": 7}


def write_demo_data(folder: Path, seed: int) -> Path:
    """Write ``train.jsonl`` and ``valid.jsonl`` into ``folder``; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = generate_rows(seed)
    for name, count in (("train", TRAIN_ROWS), ("valid", VALID_ROWS)):
        lines = [json.dumps(next(rows)) + "\n" for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def generate_rows(seed: int) -> Iterator[dict[str, str]]:
    """Yield rows ``{"prompt", "completion"}`` without end, no two in a row of the same table."""
    chance = random.Random(seed)  # noqa: S311 - data, not secrets
    while True:
        for table in chance.sample(TABLES, len(TABLES)):
            yield _row(table, chance)


def _row(table: Table, chance: random.Random) -> dict[str, str]:
    known = chance.choice(sorted(table.values))
    value = chance.choice(table.values[known])
    asked = chance.choice([column for column in table.columns if column != known])
    counted = chance.random() < _COUNTED_SHARE
    question = chance.choice(_COUNTS if counted else _QUESTIONS)
    text = question.format(asked=asked, known=known, value=value)
    target = f"COUNT {asked}" if counted else asked
    return {
        "prompt": f"table: {table.name}\ncolumns: {', '.join(table.columns)}\nQ: {text}\nA:",
        "completion": f"SELECT {target} FROM {table.name} WHERE {known} = '{value}'",  # noqa: S608
    }
