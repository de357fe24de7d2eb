"""Where things are: the home, the runtime folder with its sockets, and the files inside.

One rule: a path is computed here or nowhere. Standard library and platformdirs only, because every
client needs to find the socket before it does anything else.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from daemon import defaults
from daemon.errors import ConfigError


def default_home() -> Path:
    """Return ``STUDIOQ_HOME``, else the platform's data folder for this user."""
    named = os.environ.get("STUDIOQ_HOME")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("studioq", appauthor=False))


def default_runtime(home: Path) -> Path:
    """Return the short folder for sockets of this home and user.

    macOS allows 104 bytes for a socket's path, so the folder cannot live inside the home; it is
    named after the user and a digest of the home.
    """
    named = os.environ.get("STUDIOQ_RUNTIME")
    if named:
        return Path(named).absolute()
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:8]
    return Path("/tmp") / f"studioq-{os.getuid()}-{digest}"  # noqa: S108 - owner is checked


@dataclass(frozen=True, kw_only=True)
class Paths:
    """All files and folders of one studioq home."""

    home: Path
    runtime: Path

    @classmethod
    def default(cls) -> Paths:
        """Return the paths of the home this process's environment names."""
        home = default_home()
        return cls(home=home, runtime=default_runtime(home))

    @property
    def config(self) -> Path:
        """The daemon's configuration."""
        return self.home / "config.toml"

    @property
    def ledger(self) -> Path:
        """The SQLite ledger."""
        return self.home / "ledger.db"

    @property
    def blobs(self) -> Path:
        """Uploaded input files, by SHA-256."""
        return self.home / "blobs"

    @property
    def jobs(self) -> Path:
        """One folder per job: log, streamed text, attempts."""
        return self.home / "jobs"

    @property
    def models(self) -> Path:
        """The first model root."""
        return self.home / "models"

    @property
    def logs(self) -> Path:
        """Logs of daemon, worker, engine and Redis."""
        return self.home / "logs"

    @property
    def redis(self) -> Path:
        """The embedded Redis server's append-only file."""
        return self.home / "redis"

    @property
    def locks(self) -> Path:
        """Lock files that name the live processes of this home."""
        return self.home / "locks"

    @property
    def kernels(self) -> Path:
        """Kernels that MLX has compiled for a CUDA device."""
        return self.home / "kernels"

    @property
    def libraries(self) -> Path:
        """Links to shared libraries that the engine loads first."""
        return self.home / "lib"

    @property
    def socket(self) -> Path:
        """The API socket, open to all users of the machine."""
        return self.runtime / "studioq.sock"

    @property
    def private(self) -> Path:
        """Sockets of this account alone."""
        return self.runtime / "private"

    @property
    def redis_socket(self) -> Path:
        """The embedded Redis server's socket."""
        return self.private / "redis.sock"

    def job(self, number: int) -> Path:
        """Return the folder of job ``number``."""
        return self.jobs / str(number)

    def log(self, number: int) -> Path:
        """Return the log of job ``number``."""
        return self.job(number) / "log.txt"

    def text(self, number: int) -> Path:
        """Return the streamed text of job ``number``."""
        return self.job(number) / "text.txt"

    def attempt(self, number: int, attempt: int) -> Path:
        """Return the folder that attempt ``attempt`` of job ``number`` writes into."""
        return self.job(number) / f"attempt-{attempt}"

    def blob(self, sha256: str) -> Path:
        """Return where the upload with this hash lives."""
        return self.blobs / sha256[:2] / sha256

    def create(self) -> None:
        """Make every folder with the rights it needs.

        Raises:
            ConfigError: a folder belongs to somebody else, or the socket's path is too long.
        """
        length = len(os.fsencode(self.redis_socket))
        if length > defaults.MAX_SOCKET_PATH:
            raise ConfigError(
                f"the socket path {self.redis_socket} has {length} bytes; the system allows "
                f"{defaults.MAX_SOCKET_PATH}",
                remedy="set STUDIOQ_RUNTIME to a shorter folder, for example /tmp/sq",
            )
        for folder in (
            self.home,
            self.blobs,
            self.jobs,
            self.models,
            self.logs,
            self.redis,
            self.locks,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        _own_folder(self.runtime, 0o755)
        _own_folder(self.private, 0o700)

    def create_models(self) -> Path:
        """Make the home, if it is not there, and its model root; return that."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.models.mkdir(exist_ok=True)
        return self.models


def _own_folder(folder: Path, mode: int) -> None:
    """Make ``folder`` and check that it is a real folder of this user (another could plant it)."""
    folder.mkdir(parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"{folder} is not a folder of user {os.getuid()}: a socket there may be another's",
            remedy=f"remove {folder}, or set STUDIOQ_RUNTIME to a folder of your own",
        )
    folder.chmod(mode)


class Trust(Enum):
    """Who may listen at an address; ``daemon.client.trust`` checks it."""

    NAMED = "whoever listens at the socket that the user named"
    SHARED = "the owner of the socket's folder"
    OWN = "the user"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Which socket a client talks to, whether it may start a daemon there, whom it believes."""

    socket: Path
    autostart: bool
    trust: Trust


def find_daemon(socket: str | None = None) -> Address:
    """Return the daemon's address: flag, ``STUDIOQ_SOCKET``, /etc/studioq.toml, own home.

    Raises:
        ConfigError: a file that says it cannot be read, or says it wrongly.
    """
    named = socket or os.environ.get("STUDIOQ_SOCKET")
    if named:
        return Address(socket=Path(named), autostart=False, trust=Trust.NAMED)
    system = Path(os.environ.get("STUDIOQ_SYSTEM_CONFIG", defaults.SYSTEM_CONFIG))
    if system.exists():
        return Address(socket=_shared_socket(system), autostart=False, trust=Trust.SHARED)
    paths = Paths.default()
    settings = _toml(paths.config) if paths.config.exists() else {}
    autostart = bool(settings.get("autostart", True))
    return Address(socket=paths.socket, autostart=autostart, trust=Trust.OWN)


def _shared_socket(system: Path) -> Path:
    """Return the socket that the machine's pointer names."""
    remedy = f'write in it: socket = "/path/of/studioq.sock"; or remove {system}'
    settings = _toml(system)
    if "socket" not in settings:
        raise ConfigError(f"{system} has no key socket", field="socket", remedy=remedy)
    named = settings["socket"]
    if not isinstance(named, str) or not Path(named).is_absolute():
        raise ConfigError(
            f"{system}: socket = {named!r} is not the absolute path of a socket",
            field="socket",
            remedy=remedy,
        )
    return Path(named)


def _toml(path: Path) -> dict[str, object]:
    """Read a TOML file, or say which line is wrong."""
    import tomllib  # here, because most clients have no file to read

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", remedy=f"correct or remove {path}"
        ) from error


def machine_lock_folder() -> Path:
    """Return the folder of machine-wide GPU locks, shared by all homes and users."""
    named = os.environ.get("STUDIOQ_LOCKS")
    return Path(named) if named else Path("/tmp/studioq-locks")  # noqa: S108 - sticky, see workers.gpu
