"""``studioq logs``: a job's log, or the text it generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from daemon.cli.command import command, json_option, open_client, print_json
from daemon.cli.narration import detach
from daemon.cli.staying import stream
from daemon.cli.values import job_argument

if TYPE_CHECKING:
    from daemon.client import Part


@command(
    "logs",
    examples=("studioq logs 12", "studioq logs 12 --follow", "studioq logs 13 --text --follow"),
)
@job_argument
@click.option("--follow", is_flag=True, help="Go on until the job ends; ctrl-C leaves it running.")
@click.option("--text", is_flag=True, help="The generated text instead of the log.")
@json_option
def logs(number: int, follow: bool, text: bool, as_json: bool) -> int:
    """Show a job's log."""
    client = open_client()
    pieces = (client.follow_text if text else client.follow_log)(number) if follow else None
    read = client.read_text if text else client.read_log
    try:
        shown = pieces or _whole(number, read)
        if as_json:
            print_json({"id": number, "text": "".join(shown)})
        else:
            stream(shown)
    except KeyboardInterrupt:
        return detach([number])
    return 0


def _whole(number: int, read: Callable[[int, int], Part]) -> Iterator[str]:
    """Yield what there is now."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    offset = 0
    while (part := read(number, offset)).data:
        offset = part.offset
        yield decoder.decode(part.data)
    yield decoder.decode(b"", final=True)
