"""``studioq daemon``: run, start, stop and install the daemon.

The rule it protects: stopping is orderly. The daemon is asked over its socket; a running job writes
its checkpoint, and nothing is killed from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import Group, json_option, open_client, socket_option
from daemon.cli.narration import narrate
from daemon.cli.status import print_status
from daemon.cli.stopping import stop_daemon
from daemon.errors import DaemonAwayError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.client import Client
    from daemon.locate import Paths


@click.group(
    "daemon",
    cls=Group,
    examples=("studioq daemon start", "studioq daemon stop", "studioq daemon install --dry-run"),
)
def daemon() -> None:
    """Run, start, stop or install the daemon."""


@daemon.command("run", examples=("studioq daemon run",))
def run() -> None:
    """Run the daemon in this terminal until ctrl-C, which ends all that it started."""
    from daemon.main import main

    main([])  # this command's own words are not the daemon's


@daemon.command("start", examples=("studioq daemon start",))
def start() -> None:
    """Start the daemon in the background, unless it runs, and wait until it answers."""
    from daemon.autostart import start_daemon

    pid = start_daemon(_own_paths(), say=narrate)
    narrate("the daemon runs already" if pid is None else f"the daemon runs, pid {pid}")


@daemon.command("stop", examples=("studioq daemon stop",))
def stop() -> None:
    """Stop daemon, worker, engine and Redis; a running job goes on at the next start."""
    client = open_client()
    try:
        client.status()
    except DaemonAwayError:
        narrate(f"no daemon runs at {client.address.socket}")
        if not _start_for_orphans(client.address.socket):
            return
    _end(client, worker=True, drain=False)
    narrate("stopped")


def _start_for_orphans(socket: Path) -> bool:
    """Start a daemon if an earlier one died and left processes behind; it can end them in order.

    Only in the own home: what another daemon has left is not this user's to end.
    """
    from daemon.autostart import start_daemon
    from daemon.locate import Paths
    from daemon.supervisor.records import read_record

    paths = Paths.default()
    if socket != paths.socket:
        return False
    found = [read_record(paths.locks / f"{part}.json") for part in ("worker", "redis")]
    orphans = [str(record.pid) for record in found if record is not None and record.lives()]
    if orphans:
        narrate(f"what it had started still runs (pid {', '.join(orphans)}); ending that")
        start_daemon(paths, say=narrate)
    return bool(orphans)


@daemon.command(
    "restart",
    examples=("studioq daemon restart", "studioq daemon restart --drain   # after an upgrade"),
)
@click.option(
    "--drain",
    is_flag=True,
    help="Let the running job end first, and replace worker and engine too.",
)
def restart(drain: bool) -> None:
    """Restart the daemon; the worker and its running job go on meanwhile."""
    from daemon.autostart import start_daemon

    paths = _own_paths()
    try:
        _end(open_client(), worker=drain, drain=drain)
    except DaemonAwayError:
        narrate("no daemon ran")
    pid = start_daemon(paths, say=narrate)
    narrate(f"the daemon runs, pid {pid}")


@daemon.command("status", examples=("studioq daemon status",))
@json_option
def status(as_json: bool) -> None:
    """Show the daemon and its processes (exit 3: no daemon)."""
    print_status(as_json=as_json)


@daemon.command(
    "install",
    examples=("studioq daemon install --dry-run", "sudo studioq daemon install"),
)
@click.option(
    "--user",
    metavar="NAME",
    help="Account that runs the daemon (default: studioq; macOS: _studioq).",
)
@click.option(
    "--home",
    metavar="DIR",
    help="Folder of ledger, models and artifacts (default: /var/lib/studioq; macOS: "
    "/Library/Application Support/studioq).",
)
@click.option(
    "--root", metavar="DIR", default="/", show_default=True, help="Write below DIR (packaging)."
)
@click.option("--dry-run", is_flag=True, help="Print what would be written.")
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
def install(**options: Any) -> None:
    """Write the system service of a shared daemon, and /etc/studioq.toml, which names it."""
    from daemon.service import install_command

    click.echo("\n".join(install_command(**options)))


@daemon.command("uninstall", examples=("sudo studioq daemon uninstall",))
@click.option("--root", metavar="DIR", default="/", show_default=True, help="Remove below DIR.")
@click.option("--dry-run", is_flag=True, help="Print what would be removed.")
@click.option("--force", is_flag=True, help="Even while the daemon runs.")
def uninstall(**options: Any) -> None:
    """Remove the system service; the home with its ledger and models stays."""
    from daemon.service import uninstall_command

    click.echo("\n".join(uninstall_command(**options)))


def _own_paths() -> Paths:
    """Return the paths of this user's home.

    Raises:
        UsageError: the commands here talk to another daemon, which its service manager starts.
    """
    from daemon.locate import Paths, find_daemon

    paths = Paths.default()
    address = find_daemon(socket_option(click.get_current_context()))
    if address.socket != paths.socket:
        raise UsageError(
            f"the daemon at {address.socket} is not that of your home {paths.home}",
            remedy="a shared daemon is started by systemctl or launchctl (studioq daemon install); "
            "for your own, unset STUDIOQ_SOCKET and STUDIOQ_SYSTEM_CONFIG",
        )
    return paths


def _end(client: Client, *, worker: bool, drain: bool) -> None:
    """End the daemon, and say what takes time."""
    running = [job["id"] for job in client.jobs(state="running")["jobs"]]
    what = "waiting for its end" if drain else "it stops at its next safe point"
    for number in running if worker else ():
        narrate(f"job {number} is running; {what}")
    stop_daemon(client, worker=worker, drain=drain)
