"""What crosses the socketpair arrives as it was sent."""

from __future__ import annotations

import json

import pytest

from workers import events
from workers.events import Event
from workers.protocol import Happened, Start, decode, encode


@pytest.mark.parametrize(
    "event",
    [
        events.Checkpoint(step=5, folder="c/5", files=("c/5/adapters.safetensors",)),
        events.Checkpoint(step=16, folder="done-00016", files=("image-0000.png",), kind="image"),
        events.Artifact(path="contact-sheet.png", kind="image"),
        events.Progress(done=1, total=2, eta_seconds=0.5),
    ],
)
def test_an_event_arrives_as_it_was_sent(event: Event) -> None:
    message = Happened(attempt=3, at=1.5, event=event)
    assert decode(encode(message)) == message


def test_a_checkpoint_that_does_not_name_its_files_kind_holds_checkpoint_files() -> None:
    line = json.loads(
        encode(Happened(attempt=1, at=0.0, event=events.Checkpoint(step=1, folder="")))
    )
    del line["event"]["kind"]
    message = decode(json.dumps(line).encode())
    assert isinstance(message, Happened)
    assert isinstance(message.event, events.Checkpoint)
    assert message.event.kind == "checkpoint"


@pytest.mark.parametrize("target", [None, "/home/models/ann/new"])
def test_a_start_arrives_with_the_place_of_the_model_to_be_made(target: str | None) -> None:
    spec = {"model": "m", "to": "new"}
    start = Start(attempt=1, job=2, number=1, kind="convert", spec=spec, folder="/f", target=target)
    assert decode(encode(start)) == start
