"""``studioq wait``: wait until jobs have ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import command, json_option, open_client, print_json
from daemon.cli.narration import complain_of, detach
from daemon.cli.staying import outcome, tell
from daemon.cli.values import DURATION, jobs_argument
from daemon.errors import WaitTimedOutError

if TYPE_CHECKING:
    from daemon.client import Client


@command(
    "wait", examples=("studioq wait 12", "studioq wait 12 13 14 --timeout 2h && studioq fetch 14")
)
@jobs_argument
@click.option("--timeout", type=DURATION, metavar="D", help="Stop waiting after D (exit 5).")
@json_option
def wait(numbers: tuple[int, ...], timeout: float | None, as_json: bool) -> int:
    """Wait until all the jobs have ended, and exit with the worst outcome.

    0: all succeeded; 1: one failed or was cancelled; 4: one does not exist; 5: the time was up.
    """
    client = open_client()
    endings: list[Any] = []
    try:
        codes = _wait_for_all(client, numbers, timeout, endings)
    except KeyboardInterrupt:
        return detach(numbers)
    if as_json:
        print_json(endings)
    return max(codes)


def _wait_for_all(
    client: Client, numbers: tuple[int, ...], timeout: float | None, endings: list[Any]
) -> list[int]:
    begin = time.monotonic()
    codes = []
    for number in numbers:
        client.poll(number, 0)  # a number that does not exist is said before anything is waited for
    for number in numbers:
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begin))
        try:
            ending = client.wait(number, left)
        except WaitTimedOutError as error:
            codes.append(complain_of(error))
            continue
        tell(ending)
        endings.append(ending)
        codes.append(int(outcome(ending)))
    return codes
