"""The text of the files that make studioq a service: LaunchDaemon or systemd unit, and pointer.

One rule: the worker, its engine and Redis outlive the daemon, so no service manager may end them
with it (``AbandonProcessGroup``, ``KillMode=process``), and a night's training survives an upgrade.
"""

from __future__ import annotations

import json
import plistlib
from dataclasses import dataclass
from pathlib import Path

from daemon import defaults
from daemon.errors import ConfigError

LABEL = "studioq.daemon"
UNIT = "studioq.service"
OPEN_FILES = 65_536
THROTTLE = 10  # seconds between two starts of a daemon that dies at once
STOP_SECONDS = int(defaults.STOP_GRACE + defaults.CANCEL_GRACE)  # a checkpoint, then some


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the files say: who runs which program, and where its data and sockets are."""

    executable: Path
    user: str
    home: Path
    runtime: Path

    @property
    def socket(self) -> Path:
        """The API socket, as ``daemon.locate.Paths`` places it in the runtime folder."""
        return self.runtime / "studioq.sock"

    @property
    def environment(self) -> dict[str, str]:
        """The daemon's variables; caches of libraries follow HOME into the service's home."""
        return {
            "HOME": str(self.home),
            "STUDIOQ_HOME": str(self.home),
            "STUDIOQ_RUNTIME": str(self.runtime),
        }


def launch_daemon(service: Service) -> str:
    """Return the property list of a LaunchDaemon (launchd.plist(5))."""
    log = str(service.home / "launchd.log")
    plist = {
        "Label": LABEL,
        "ProgramArguments": [str(service.executable)],
        "UserName": service.user,
        "EnvironmentVariables": service.environment,
        "WorkingDirectory": str(service.home),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": THROTTLE,
        "AbandonProcessGroup": True,
        "ExitTimeOut": STOP_SECONDS,
        "ProcessType": "Interactive",  # the default slows a job's disk and processor use
        "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "HardResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    return plistlib.dumps(plist).decode("utf-8")


def systemd_unit(service: Service) -> str:
    """Return a systemd unit (systemd.service(5)).

    ``OOMPolicy=continue``: an engine that runs out of memory ends its job, not the service.
    The runtime folder is kept when the daemon ends, because the worker and Redis live on in it.
    """
    environment = "\n".join(
        f"Environment={_quoted(f'{name}={value}')}" for name, value in service.environment.items()
    )
    return f"""\
# Written by `studioq daemon install`.
[Unit]
Description=studioq, the job queue of this machine's GPU
After=network-online.target
Wants=network-online.target

[Service]
Type=simple
User={service.user}
{environment}
ExecStart=:{_quoted(str(service.executable))}
WorkingDirectory={_specifier_free(str(service.home))}
RuntimeDirectory={service.runtime.name}
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
Restart=on-failure
RestartSec={THROTTLE}
KillMode=process
TimeoutStopSec={STOP_SECONDS}
OOMPolicy=continue
LimitNOFILE={OPEN_FILES}
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
"""


def _quoted(text: str) -> str:
    """Quote one word for a unit file: C escapes, and ``%`` doubled."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_specifier_free(escaped)}"'


def _specifier_free(text: str) -> str:
    return text.replace("%", "%%")


def pointer(service: Service) -> str:
    """Return ``/etc/studioq.toml``, which sends every client of the machine to the service."""
    return f"""\
# Written by `studioq daemon install`. While this file exists every studioq command of this
# machine talks to the daemon on this socket, and none starts a daemon of its own.
socket = {json.dumps(str(service.socket), ensure_ascii=False)}
"""


def check_printable(name: str, value: str) -> None:
    """Refuse a value that a line of these files cannot hold.

    Raises:
        ConfigError: it is empty or has control characters.
    """
    if not value or not value.isprintable():
        raise ConfigError(
            f"{name} {value!r} is empty or has control characters",
            remedy="choose another; it becomes a line of the service's file",
        )
