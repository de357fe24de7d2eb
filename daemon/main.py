"""The daemon's process: put together here, run in the foreground, ended in good order.

The rule it protects: nothing is touched before the home's lock is held, and the ledger is migrated
only while no worker of an older version lives. Clients may connect as soon as the lock is held;
they are answered when everything stands.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from daemon import __version__
from daemon.errors import ExitCode, StudioqError
from daemon.locate import Paths
from daemon.logs import note, setup_logging
from daemon.supervisor.records import HomeLock

if TYPE_CHECKING:
    from daemon.ledger.store import Ledger

log = logging.getLogger("daemon")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the daemon of the home that the environment names, until it is told to end."""
    parser = argparse.ArgumentParser(
        prog="studioq-daemon",
        description="The studioq daemon, in the foreground; STUDIOQ_HOME names its home.",
    )
    parser.add_argument("--version", action="version", version=f"studioq {__version__}")
    parser.parse_args(argv)
    try:
        run(Paths.default())
    except StudioqError as error:
        note(log, "failed", logging.ERROR, code=error.code, error=error.message)
        sys.stderr.write(f"studioq-daemon: {error.message}\n")
        if error.remedy:
            sys.stderr.write(f"  {error.remedy}\n")
        sys.exit(int(error.exit_code))
    sys.exit(int(ExitCode.OK))


def run(paths: Paths, *, clock: Callable[[], float] = time.time) -> None:
    """Serve the home of ``paths`` until SIGTERM, SIGINT or a shutdown request.

    Raises:
        StudioqError: the home cannot be served, and why.
    """
    os.umask(0o077)
    paths.create()
    setup_logging(paths.logs / "daemon.log", stderr=True)
    lock = HomeLock(paths.locks / "daemon.lock")
    try:
        _serve(paths, clock)
    except StudioqError:
        raise
    except BaseException:
        log.exception("action=crashed")
        raise
    finally:
        lock.release()


def _serve(paths: Paths, clock: Callable[[], float]) -> None:
    """Listen, open the ledger, serve, and close everything in the reverse order."""
    from daemon.api.server import bind
    from daemon.config import load_config

    started_at = clock()
    note(log, "starting", version=__version__, pid=os.getpid(), home=paths.home)
    config = load_config(paths)
    with ExitStack() as stack:
        listener = bind(paths.socket)
        stack.callback(paths.socket.unlink, missing_ok=True)
        stack.enter_context(listener)
        ledger = _open_ledger(paths)
        stack.callback(ledger.close)
        from daemon.serving import Home, serve

        home = Home(paths=paths, config=config, ledger=ledger, clock=clock, started_at=started_at)
        asyncio.run(serve(home, listener))
    note(log, "ended", pid=os.getpid())


def _open_ledger(paths: Paths) -> Ledger:
    """Open the ledger; before it is migrated, an older worker checkpoints its job and ends."""
    from daemon.ledger.migrate import needs_migration, open_ledger

    if paths.ledger.exists() and needs_migration(paths.ledger):
        from daemon.supervisor.supervisor import WORKER_GRACE, worker_child

        worker = worker_child(paths)
        if worker.living() is not None:
            note(log, "worker_ended_for_migration")
            worker.stop(grace=WORKER_GRACE)
    return open_ledger(paths.ledger)
