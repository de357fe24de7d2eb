"""``studioq-engine``: take the GPU lock, then import MLX, then serve the worker.

The rule this module protects: nothing touches the GPU before the lock is held. The worker starts
this program with one end of a socketpair as its standard input.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import platform
import resource
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, NoReturn

from daemon import defaults
from daemon.errors import ConfigError
from daemon.locate import default_home, machine_lock_folder
from workers.engine.gpu_lock import GpuLock, device_lock_name
from workers.engine.link import EXIT_FAULT, Link, Pulse
from workers.engine.outbox import Outbox
from workers.engine.outcomes import log_traceback
from workers.protocol import Alive, Ready

if TYPE_CHECKING:
    from workers.engine.loop import Inbox
    from workers.models import ModelCache

# Seconds between two tries when the lock's folder or file cannot be used.
_RETRY_LOCK = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the worker at the other end of standard input; ``arguments``: the lock folder."""
    given = sys.argv[1:] if arguments is None else arguments
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        sys.stderr.write("studioq-engine is started by studioq-worker, not by hand\n")
        return 2
    _prepare_process()
    status = 0
    try:
        _serve(Path(given[0]) if given else machine_lock_folder())
    except Exception as error:  # noqa: BLE001 - the log gets it, the worker sees the status
        log_traceback(error)
        status = EXIT_FAULT
    return _exit(status)


def _prepare_process() -> None:
    """Leave ends to the worker: it alone decides, and its own end is seen on the socket."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.excepthook = _fail


def _fail(arguments: threading.ExceptHookArgs) -> NoReturn:
    """End the engine when one of its threads fails; half an engine would look alive."""
    threading.__excepthook__(arguments)
    _exit(EXIT_FAULT)


def _exit(status: int) -> NoReturn:
    """End without running finalizers, which MLX's own threads do not always survive."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve(locks: Path) -> None:
    link = Link(_take_socket())
    inbox: Inbox = SimpleQueue()
    link.start_reading(inbox.put)
    pulse = Pulse(link, defaults.HEARTBEAT_EVERY)
    pulse.start()
    lock = _acquire(locks / device_lock_name(os.environ), link)
    _run(link, inbox, pulse, lock)


def _take_socket() -> socket.socket:
    """Take the socket away from standard input, so that no library can read from it."""
    end = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return end


def _acquire(path: Path, link: Link) -> GpuLock:
    """Wait for the GPU, telling the worker what for."""

    def report(sentence: str) -> None:
        link.send(Ready(device="", waiting_for=sentence))

    while True:
        try:
            return GpuLock.acquire(path, home=default_home(), report=report)
        except ConfigError as error:
            report(f"{error.message}; {error.remedy}")
            time.sleep(_RETRY_LOCK)


def _run(link: Link, inbox: Inbox, pulse: Pulse, lock: GpuLock) -> None:
    """Import MLX and run jobs until told to quit."""
    from workers import memory

    budget = memory.configure(memory.Limits.named_by(os.environ))
    link.send(Ready(device=memory.device_name(), versions=_versions()))
    # The rest of the imports takes seconds; they pass while the worker claims the first job.
    from workers.engine.loop import Loop, Terminate
    from workers.models import ModelCache

    models = ModelCache(budget, time.monotonic, limit_bytes=memory.memory_limit())
    pulse.show(lambda: _look(models, lock))
    gc.collect()
    gc.freeze()
    outbox = Outbox(link.send_line, clock=time.monotonic, now=time.time)
    outbox.start()
    signal.signal(signal.SIGTERM, lambda *_: inbox.put(Terminate()))
    Loop(inbox, outbox, models).run()


def _look(models: ModelCache, lock: GpuLock) -> Alive:
    """Return what the pulse tells; called in its thread, so nothing here may wait for the GPU."""
    from workers import memory

    lock.keep()
    use = replace(memory.memory_use(), peak=models.memory.highest())
    return Alive(memory=use.to_dict(), models=tuple(str(path) for path in models.paths()))


def _versions() -> Mapping[str, str]:
    """Return the versions that a result may depend on."""
    packages = {name: metadata.version(name) for name in ("studioq", "mlx", "mlx-lm")}
    return {**packages, "python": platform.python_version(), "system": platform.platform()}
