"""``studioq daemon install``: one daemon for a whole machine, started by the system.

It writes three things and runs nothing: the service manager's file, ``/etc/studioq.toml``, and the
folders of an account of its own. A file that differs is never overwritten unasked, and no account
is ever created here.

The command line calls ``install_command`` and ``uninstall_command`` and prints what they return.
"""

from __future__ import annotations

import os
import platform
import pwd
import shlex
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from daemon import defaults, service_files
from daemon.checks.sockets import alive
from daemon.errors import ConfigError, ConflictError, ForbiddenError
from daemon.service_files import Service, check_printable

USERS = {"Darwin": "_studioq", "Linux": "studioq"}
HOMES = {"Darwin": "/Library/Application Support/studioq", "Linux": "/var/lib/studioq"}
# On Linux the service manager makes /run/studioq for the account at every start. launchd does not,
# and an account of its own cannot write to /var/run: there the folder is one that stays.
RUNTIMES = {"Darwin": "/var/db/studioq", "Linux": "/run/studioq"}
ROLE_UIDS = range(390, 199, -1)  # macOS: role accounts have numbers from 200 to 400


@dataclass(frozen=True, kw_only=True)
class InstallOptions:
    """What to install and where.

    ``root`` is put before every path that is written, for packaging and tests; what the files say
    is not changed by it. With a root no account is looked up and nothing changes owner.
    """

    system: str
    user: str
    home: Path
    executable: Path
    root: Path = Path("/")
    dry_run: bool = False
    force: bool = False

    @property
    def service(self) -> Service:
        """What the files say."""
        return Service(
            executable=self.executable,
            user=self.user,
            home=self.home,
            runtime=Path(RUNTIMES[self.system]),
        )

    @property
    def staged(self) -> bool:
        """Whether the files go below another root than the machine's own."""
        return self.root != Path("/")

    def at(self, path: Path) -> Path:
        """Return where ``path`` is written."""
        return self.root / path.relative_to("/")


@dataclass(frozen=True, kw_only=True)
class Written:
    """One file or folder: ``state`` is ``written``, ``unchanged``, ``removed`` or ``planned``."""

    path: Path
    state: str
    text: str | None = None


def make_options(
    *,
    user: str | None = None,
    home: str | None = None,
    root: str = "/",
    dry_run: bool = False,
    force: bool = False,
) -> InstallOptions:
    """Fill in this system's account, home and program.

    Raises:
        ConfigError: a value cannot stand in the files, or this system has no known service manager.
    """
    system = platform.system()
    if system not in USERS:
        raise ConfigError(f"{system} has neither launchd nor systemd, as far as studioq knows")
    options = InstallOptions(
        system=system,
        user=user or USERS[system],
        home=Path(home or HOMES[system]),
        executable=Path(sys.executable).absolute().parent / "studioq-daemon",
        root=Path(root).absolute(),
        dry_run=dry_run,
        force=force,
    )
    check(options)
    return options


def check(options: InstallOptions) -> None:
    """Refuse values that cannot stand in the files.

    Raises:
        ConfigError: names the value and the reason.
    """
    check_printable("the account", options.user)
    _check_program(options)
    for name, path in (("the home", options.home), ("the program", options.executable)):
        check_printable(name, str(path))
        if not path.is_absolute() or ".." in path.parts:
            raise ConfigError(
                f"{name} {path} is not an absolute path", remedy="write it from / on, without .."
            )


def _check_program(options: InstallOptions) -> None:
    """Refuse what systemd refuses in a program's name, however it is quoted."""
    if options.system == "Linux" and set(str(options.executable)) & set("\"'\\"):
        raise ConfigError(
            f"systemd starts no program whose path has quotes or backslashes: {options.executable}",
            remedy="install studioq in another folder, for example /opt/studioq",
        )


def files(options: InstallOptions) -> dict[Path, str]:
    """Return the text of every file that an installation writes."""
    service = options.service
    pointer = {Path(defaults.SYSTEM_CONFIG): service_files.pointer(service)}
    if options.system == "Darwin":
        plist = Path("/Library/LaunchDaemons") / f"{service_files.LABEL}.plist"
        return {plist: service_files.launch_daemon(service), **pointer}
    unit = Path("/etc/systemd/system") / service_files.UNIT
    return {unit: service_files.systemd_unit(service), **pointer}


def install(options: InstallOptions) -> list[Written]:
    """Write the service's folders and files.

    Raises:
        ForbiddenError: this is not root.
        ConfigError: the account is missing, or cannot reach the program.
        ConflictError: a file is there with other content, and ``force`` was not given.
    """
    texts = files(options)
    _refuse_overwriting(options, texts)
    if options.dry_run:
        return [
            Written(path=options.at(path), state="planned", text=text)
            for path, text in texts.items()
        ]
    account = None if options.staged else _account(options)
    folders = [_make_folder(options, path, mode, account) for path, mode in _folders(options)]
    return folders + [_write(options, path, text) for path, text in texts.items()]


def _refuse_overwriting(options: InstallOptions, texts: dict[Path, str]) -> None:
    for path, text in texts.items():
        place = options.at(path)
        if not options.force and place.exists() and place.read_text(encoding="utf-8") != text:
            raise ConflictError(
                f"{place} is there and differs from what would be written",
                remedy=f"compare it with --dry-run, then remove {place} or give --force",
            )


def _account(options: InstallOptions) -> pwd.struct_passwd:
    """Return the service's account, having checked that this is root and that it can start."""
    if os.geteuid() != 0:
        raise ForbiddenError(
            "installing a service needs root",
            remedy=f"{_sudo_studioq(options)} daemon install",
        )
    try:
        account = pwd.getpwnam(options.user)
    except KeyError:
        raise ConfigError(
            f"there is no account {options.user!r} for the service",
            remedy=f"make it with: {account_command(options)}",
        ) from None
    if account.pw_uid == 0:
        raise ConfigError(
            f"the account {options.user!r} is root's; jobs must not run with all rights",
            remedy="leave --user out, or name an account without rights",
        )
    _check_reachable(options, account.pw_uid)
    return account


def _check_reachable(options: InstallOptions, uid: int) -> None:
    """Refuse a program, Python or source (an editable install's) that the account cannot read."""
    for needed in (options.executable, Path(sys.executable), Path(__file__)):
        closed = closed_place(needed, uid) if needed.exists() else needed
        if closed is not None:
            raise ConfigError(
                f"the account {options.user} cannot use {needed}: "
                f"{closed} is {'closed to it' if closed.exists() else 'missing'}",
                remedy="install studioq where everybody can read it, for example in a virtual "
                "environment /opt/studioq, and run the `studioq daemon install` there",
            )


def _sudo_studioq(options: InstallOptions) -> str:
    return f"sudo {shlex.quote(str(options.executable.parent / 'studioq'))}"


def account_command(options: InstallOptions) -> str:
    """Return the command with which an admin makes the service's account."""
    user, home = shlex.quote(options.user), shlex.quote(str(options.home))
    if options.system == "Linux":
        return f"sudo useradd --system --home-dir {home} --shell /usr/sbin/nologin {user}"
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    uid = next(number for number in ROLE_UIDS if number not in taken)
    return (
        f"sudo sysadminctl -addUser {user} -fullName studioq -roleAccount -UID {uid} "
        f"-home {home} -shell /usr/bin/false"
    )


def closed_place(target: Path, uid: int) -> Path | None:
    """Return what stops ``uid`` on its way to ``target``: a folder, the file itself, or nothing.

    Folders must let others pass and the file must let others read. Links are followed, since a
    virtual environment's Python is one. Group rights do not count: a service should not need them.
    """
    for way in (target, target.resolve()):
        for place in (*reversed(way.parents), way):
            owner, other = (
                (stat.S_IRUSR, stat.S_IROTH) if place == way else (stat.S_IXUSR, stat.S_IXOTH)
            )
            found = place.stat()
            if not found.st_mode & (owner if found.st_uid == uid else other):
                return place
    return None


def _folders(options: InstallOptions) -> list[tuple[Path, int]]:
    """Return the folders to make, with their rights; systemd makes the runtime folder itself."""
    home = [(options.home, 0o700)]
    return [*home, (options.service.runtime, 0o755)] if options.system == "Darwin" else home


def _make_folder(
    options: InstallOptions, path: Path, mode: int, account: pwd.struct_passwd | None
) -> Written:
    """Make a folder of the account; one that is there must be real, and the account's or root's."""
    place = options.at(path)
    known = os.path.lexists(place)
    if not known:
        place.mkdir(parents=True)
    found = place.lstat()
    foreign = account is not None and found.st_uid not in {0, account.pw_uid}
    if foreign or not stat.S_ISDIR(found.st_mode):
        raise ConfigError(
            f"{place} is not a folder of {options.user} (owner: user {found.st_uid})",
            remedy="choose another --home, or move it away",
        )
    place.chmod(mode)
    if account is not None:
        os.chown(place, account.pw_uid, account.pw_gid)
    return Written(path=place, state="unchanged" if known else "written")


def _write(options: InstallOptions, path: Path, text: str) -> Written:
    place = options.at(path)
    if place.exists() and place.read_text(encoding="utf-8") == text:
        return Written(path=place, state="unchanged", text=text)
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(place.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(place)
    return Written(path=place, state="written", text=text)


def uninstall(options: InstallOptions) -> list[Written]:
    """Remove the service's files; the home with its ledger, models and artifacts stays.

    Raises:
        ForbiddenError: this is not root.
        ConflictError: the service still runs, and ``force`` was not given.
    """
    if not (options.dry_run or options.staged) and os.geteuid() != 0:
        raise ForbiddenError(
            "removing a service needs root",
            remedy=f"{_sudo_studioq(options)} daemon uninstall",
        )
    socket = options.at(options.service.socket)
    if not (options.dry_run or options.force) and alive(socket):
        raise ConflictError(
            f"the service still runs: something answers on {socket}",
            remedy="; ".join(stop_commands(options)),
        )
    return [_remove(options, path) for path in files(options) if options.at(path).exists()]


def _remove(options: InstallOptions, path: Path) -> Written:
    place = options.at(path)
    if options.dry_run:
        return Written(path=place, state="planned")
    place.unlink()
    return Written(path=place, state="removed")


def start_commands(options: InstallOptions) -> list[str]:
    """Return the commands with which an admin starts the installed service."""
    if options.system == "Darwin":
        return [f"sudo launchctl bootstrap system {next(iter(files(options)))}"]
    return ["sudo systemctl daemon-reload", f"sudo systemctl enable --now {service_files.UNIT}"]


def stop_commands(options: InstallOptions) -> list[str]:
    """Return the commands that end the running job, worker and Redis, and then the service."""
    end = "sudo systemctl disable --now " + service_files.UNIT
    if options.system == "Darwin":
        end = f"sudo launchctl bootout system/{service_files.LABEL}"
    return [f"{_sudo_studioq(options)} daemon stop", end]


def install_command(
    *,
    user: str | None = None,
    home: str | None = None,
    root: str = "/",
    dry_run: bool = False,
    force: bool = False,
) -> list[str]:
    """Do ``studioq daemon install`` and return the lines to print."""
    options = make_options(user=user, home=home, root=root, dry_run=dry_run, force=force)
    lines = [line for written in install(options) for line in _told(written, show=dry_run)]
    if not dry_run:
        lines += ["", "Start it with:", *(f"  {command}" for command in start_commands(options))]
    return lines


def uninstall_command(*, root: str = "/", dry_run: bool = False, force: bool = False) -> list[str]:
    """Do ``studioq daemon uninstall`` and return the lines to print."""
    options = make_options(root=root, dry_run=dry_run, force=force)
    removed = uninstall(options)
    if not removed:
        return ["nothing is installed"]
    return [line for written in removed for line in _told(written, show=False)]


def _told(written: Written, *, show: bool) -> list[str]:
    if show and written.text is not None:
        return [f"# {written.path}", *written.text.splitlines(), ""]
    return [f"{written.state}: {written.path}"]
