"""What ``studioq daemon install`` writes, read back by the parsers that will read it."""

from __future__ import annotations

import configparser
import os
import plistlib
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import defaults, locate, service
from daemon.errors import ConfigError, ConflictError, ForbiddenError
from daemon.service import InstallOptions, Written

ODD = Path("/opt/my $tudio 100%/bin/studioq-daemon")


@pytest.fixture
def linux(tmp_path: Path) -> InstallOptions:
    """An installation on Linux, into a folder."""
    return InstallOptions(
        system="Linux",
        user="studioq",
        home=Path("/var/lib/studioq"),
        executable=Path("/opt/studioq/bin/studioq-daemon"),
        root=tmp_path,
    )


@pytest.fixture
def mac(linux: InstallOptions) -> InstallOptions:
    """An installation on macOS, into a folder."""
    return replace(
        linux, system="Darwin", user="_studioq", home=Path("/Library/Application Support/studioq")
    )


def states(written: list[Written]) -> set[str]:
    return {item.state for item in written}


def unit_of(options: InstallOptions) -> Path:
    return options.root / "etc/systemd/system/studioq.service"


def unit_keys(options: InstallOptions) -> dict[str, str]:
    """Return the unit's [Service] keys; a key that comes again keeps its last value."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit_of(options).read_text(encoding="utf-8"))
    return dict(parser["Service"])


def test_a_unit_lets_the_worker_outlive_the_daemon(linux: InstallOptions) -> None:
    assert states(service.install(linux)) == {"written"}
    keys = unit_keys(linux)
    assert keys["User"] == "studioq"
    assert keys["KillMode"] == "process"
    assert keys["Restart"] == "on-failure"
    assert keys["OOMPolicy"] == "continue"
    assert int(keys["TimeoutStopSec"]) > defaults.STOP_GRACE
    assert (keys["RuntimeDirectory"], keys["RuntimeDirectoryPreserve"]) == ("studioq", "yes")
    assert keys["ExecStart"] == ':"/opt/studioq/bin/studioq-daemon"'


def test_the_unit_names_home_and_runtime_folder(linux: InstallOptions) -> None:
    service.install(replace(linux, home=Path("/srv/gpu queue")))
    text = unit_of(linux).read_text(encoding="utf-8")
    assert 'Environment="STUDIOQ_HOME=/srv/gpu queue"\n' in text
    assert 'Environment="STUDIOQ_RUNTIME=/run/studioq"\n' in text
    assert "WorkingDirectory=/srv/gpu queue\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_accepts_the_unit(linux: InstallOptions, tmp_path: Path) -> None:
    program = tmp_path / ODD.relative_to("/")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    service.install(replace(linux, executable=program, user="daemon", home=Path("/srv/100% x")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit_of(linux))],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "studioq" in line]
    assert (done.returncode, complaints) == (0, [])


def test_a_launch_daemon_lets_the_worker_outlive_the_daemon(mac: InstallOptions) -> None:
    service.install(mac)
    plist = mac.root / "Library/LaunchDaemons/studioq.daemon.plist"
    keys = plistlib.loads(plist.read_bytes())
    assert keys["Label"] == "studioq.daemon"
    assert keys["UserName"] == "_studioq"
    assert keys["ProgramArguments"] == ["/opt/studioq/bin/studioq-daemon"]
    assert keys["AbandonProcessGroup"] is True
    assert keys["KeepAlive"] == {"SuccessfulExit": False}
    assert keys["RunAtLoad"] is True
    assert keys["ProcessType"] == "Interactive"
    assert keys["ExitTimeOut"] > defaults.STOP_GRACE
    assert keys["EnvironmentVariables"]["STUDIOQ_HOME"] == "/Library/Application Support/studioq"
    assert keys["StandardErrorPath"].startswith("/Library/Application Support/studioq/")


def test_macs_runtime_folder_is_made_and_short_enough(mac: InstallOptions) -> None:
    service.install(mac)
    runtime = mac.service.runtime
    assert mac.at(runtime).stat().st_mode & 0o777 == 0o755
    paths = locate.Paths(home=mac.home, runtime=runtime)
    assert paths.socket == mac.service.socket
    assert len(os.fsencode(paths.redis_socket)) <= defaults.MAX_SOCKET_PATH


def test_the_home_is_private(linux: InstallOptions) -> None:
    service.install(linux)
    assert linux.at(linux.home).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("system", ["linux", "mac"])
def test_clients_find_the_service(
    system: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: InstallOptions = request.getfixturevalue(system)
    service.install(options)
    pointer = options.root / "etc/studioq.toml"
    assert set(tomllib.loads(pointer.read_text(encoding="utf-8"))) == {"socket"}
    monkeypatch.delenv("STUDIOQ_SOCKET", raising=False)
    monkeypatch.setenv("STUDIOQ_SYSTEM_CONFIG", str(pointer))
    found = locate.find_daemon()
    assert (found.socket, found.autostart) == (options.service.socket, False)
    assert pointer.stat().st_mode & 0o777 == 0o644


def test_odd_paths_survive_the_property_list(mac: InstallOptions) -> None:
    service.install(replace(mac, executable=ODD, home=Path("/Volumes/a <&> b")))
    plist = mac.root / "Library/LaunchDaemons/studioq.daemon.plist"
    keys = plistlib.loads(plist.read_bytes())
    assert keys["ProgramArguments"] == [str(ODD)]
    assert keys["WorkingDirectory"] == "/Volumes/a <&> b"


def test_installing_twice_changes_nothing(linux: InstallOptions) -> None:
    service.install(linux)
    assert states(service.install(linux)) == {"unchanged"}


def test_a_file_that_differs_is_kept(linux: InstallOptions) -> None:
    service.install(linux)
    unit_of(linux).write_text("mine\n")
    with pytest.raises(ConflictError, match="differs") as refused:
        service.install(linux)
    assert "--force" in str(refused.value.remedy)
    assert unit_of(linux).read_text() == "mine\n"
    service.install(replace(linux, force=True))
    assert "KillMode" in unit_of(linux).read_text()


def test_a_dry_run_writes_nothing(linux: InstallOptions) -> None:
    planned = service.install(replace(linux, dry_run=True))
    assert states(planned) == {"planned"}
    assert all(item.text for item in planned)
    assert not list(linux.root.iterdir())


def test_the_home_may_not_be_a_link(linux: InstallOptions, tmp_path: Path) -> None:
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/studioq").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="not a folder of studioq"):
        service.install(linux)


def test_uninstalling_keeps_the_home(linux: InstallOptions) -> None:
    service.install(linux)
    assert states(service.uninstall(replace(linux, dry_run=True))) == {"planned"}
    assert states(service.uninstall(linux)) == {"removed"}
    assert not unit_of(linux).exists()
    assert not (linux.root / "etc/studioq.toml").exists()
    assert linux.at(linux.home).is_dir()
    assert service.uninstall(linux) == []


def test_a_running_service_is_not_uninstalled(linux: InstallOptions) -> None:
    root = Path(tempfile.mkdtemp(prefix="sq", dir="/tmp"))
    options = replace(linux, root=root)
    try:
        service.install(options)
        place = options.at(options.service.socket)
        place.parent.mkdir(parents=True)
        with closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(str(place))
            listener.listen()
            with pytest.raises(ConflictError, match="still runs") as refused:
                service.uninstall(options)
        assert "daemon stop" in str(refused.value.remedy)
        assert states(service.uninstall(options)) == {"removed"}
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("home", ["relative", "/a/../b", "/two\nlines"])
def test_a_home_that_no_file_can_name_is_refused(home: str) -> None:
    with pytest.raises(ConfigError, match="home"):
        service.make_options(home=home)


def test_a_program_that_systemd_refuses_is_refused(linux: InstallOptions) -> None:
    odd = replace(linux, executable=Path("/opt/it's/studioq-daemon"))
    with pytest.raises(ConfigError, match="quotes"):
        service.check(odd)
    service.check(replace(odd, system="Darwin"))


def test_the_account_is_never_made_but_named(linux: InstallOptions, mac: InstallOptions) -> None:
    assert service.account_command(linux) == (
        "sudo useradd --system --home-dir /var/lib/studioq --shell /usr/sbin/nologin studioq"
    )
    command = service.account_command(mac)
    assert "-roleAccount -UID 3" in command
    assert "-home '/Library/Application Support/studioq'" in command


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an account without rights")
def test_installing_needs_root(linux: InstallOptions) -> None:
    with pytest.raises(ForbiddenError, match="root"):
        service.install(replace(linux, root=Path("/")))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("user", "reason"), [("no-such-account", "no account"), ("root", "root's")]
)
def test_a_missing_account_or_root_is_refused(
    linux: InstallOptions, user: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        service.install(replace(linux, root=Path("/"), user=user, home=Path("/nowhere/studioq")))
    assert not Path("/nowhere").exists()


def test_a_program_in_a_private_folder_is_found_out(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    private = tmp_path / "private"
    program = private / "bin" / "studioq-daemon"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    private.chmod(0o700)
    assert service.closed_place(program, os.getuid()) is None
    assert service.closed_place(program, nobody) in {private, *private.parents}
    link = Path(tempfile.mkdtemp(dir="/tmp")) / "link"
    try:
        link.parent.chmod(0o755)
        link.symlink_to(program)
        assert service.closed_place(link, nobody) in {link, private, *private.parents}
    finally:
        shutil.rmtree(link.parent)


def test_the_command_shows_a_plan_or_says_what_comes_next(tmp_path: Path) -> None:
    plan = service.install_command(root=str(tmp_path), dry_run=True)
    assert any(line.startswith("socket = ") for line in plan)
    lines = service.install_command(root=str(tmp_path))
    assert lines[0].startswith("written: ")
    assert lines[-1].startswith("  sudo ")
    assert service.uninstall_command(root=str(tmp_path))[0].startswith("removed: ")
    assert service.uninstall_command(root=str(tmp_path)) == ["nothing is installed"]


def test_the_daemons_program_is_beside_python() -> None:
    options = service.make_options()
    assert options.executable == Path(sys.executable).parent / "studioq-daemon"
