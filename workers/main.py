"""``studioq-worker``: the process that runs a home's jobs; the daemon starts it.

The rule this module protects: one worker for each home. It imports no MLX; the engine that it
starts does.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import time

from daemon import defaults
from daemon.config import Config, load_config
from daemon.errors import ConfigError, StudioqError
from daemon.ledger.migrate import needs_migration
from daemon.ledger.revision import ledger_id
from daemon.ledger.store import Ledger
from daemon.locate import Paths, machine_lock_folder
from daemon.logs import setup_logging
from daemon.models import ModelRoots
from daemon.queue.connection import COMMAND_TIMEOUT, connect
from daemon.responsive import be_responsive
from workers.engine.handle import EngineProcess
from workers.keeper import EngineKeeper
from workers.lock import WorkerLock
from workers.memory_env import BUDGET_VARIABLE, CACHE_VARIABLE, engine_environment
from workers.recorder import Recorder
from workers.runner import Runner
from workers.worker import StudioqWorker

log = logging.getLogger(__name__)


def main() -> int:
    """Run the worker of the home that the environment names, until a signal ends it."""
    paths = Paths.default()
    try:
        paths.create()
        config = load_config(paths)
        lock = WorkerLock.acquire(paths.locks / "worker.lock")
        setup_logging(paths.logs / "worker.log", stderr=True)
        worker = make_worker(paths, config)
    except StudioqError as error:
        sys.stderr.write(f"studioq-worker: {error.message}\n")
        return error.exit_code
    be_responsive()
    log.info("action=worker_started name=%s pid=%d", worker.name, os.getpid())
    worker.work()
    lock.release()
    log.info("action=worker_ended name=%s", worker.name)
    return 0


def make_worker(paths: Paths, config: Config) -> StudioqWorker:
    """Put a worker together; it starts its engine when it works.

    Raises:
        ConfigError: the daemon has not made or upgraded the ledger.
    """
    ledger = _open_ledger(paths)
    with ledger.reading() as session:
        identity = ledger_id(session)
    url = config.redis_address(paths)
    return StudioqWorker(
        name=_worker_name(),
        ledger_id=identity,
        runner=_make_runner(paths, config, ledger),
        connection=connect(url),
        waiting=connect(url, timeout=defaults.WAKE_TIMEOUT + COMMAND_TIMEOUT),
    )


def _make_runner(paths: Paths, config: Config, ledger: Ledger) -> Runner:
    environment = {
        **engine_environment(paths.libraries),
        BUDGET_VARIABLE: str(config.model_budget),
        CACHE_VARIABLE: str(config.buffer_cache_bytes),
    }

    def spawn() -> EngineProcess:
        return EngineProcess.spawn(
            locks=machine_lock_folder(), log=paths.logs / "engine.log", environment=environment
        )

    return Runner(
        ledger=ledger,
        paths=paths,
        roots=ModelRoots(config.all_roots(paths)),
        keeper=EngineKeeper(spawn=spawn),
        recorder=Recorder(ledger, paths, clock=time.monotonic, now=time.time),
        clock=time.monotonic,
        now=time.time,
    )


def _open_ledger(paths: Paths) -> Ledger:
    if needs_migration(paths.ledger):
        raise ConfigError(
            f"the ledger {paths.ledger} is absent or of an older version",
            remedy="start the daemon, which makes and upgrades it: studioq daemon start",
        )
    return Ledger(paths.ledger)


def _worker_name() -> str:
    """Return a name that no worker had before: RQ refuses a known one for minutes."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


if __name__ == "__main__":
    sys.exit(main())
