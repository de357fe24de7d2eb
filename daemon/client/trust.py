"""Whether what listens at a daemon's address may be told prompts and tokens.

The rule it protects: a socket in a place where another could have put one is believed only if the
kernel says that the right account listens there. It is asked before the first byte is sent.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from daemon.errors import ConfigError
from daemon.locate import Address, Trust

_ROOT = 0


def admit(address: Address, uid: int) -> None:
    """Let a daemon of user ``uid`` at ``address`` pass.

    A socket that the user named is theirs to judge. The own home's daemon must be the user's own;
    a shared one must belong to the owner of its socket's folder, in which nobody else may write.
    Root passes: it could read everything anyway.

    Raises:
        ConfigError: it is somebody else's.
    """
    if address.trust is Trust.OWN and uid not in {_ROOT, os.getuid()}:
        raise ConfigError(
            f"{address.socket} belongs to {_account(uid)}, not to you; nothing was sent to it",
            remedy="set STUDIOQ_RUNTIME to a folder of your own; should you want that daemon: "
            f"--socket {address.socket}",
        )
    if address.trust is Trust.SHARED:
        _admit_shared(address.socket, uid)


def _admit_shared(socket: Path, uid: int) -> None:
    folder = socket.parent
    open_place = _open_to_others(folder.resolve())
    if open_place is not None:
        raise ConfigError(
            f"others than its owner may write in {open_place}, so that the daemon's socket {socket}"
            " may be anybody's; nothing was sent to it",
            remedy="ask the person who installed the daemon to give it a runtime folder of its "
            "own, such as /run/studioq, with the rights 0755",
        )
    owner = folder.stat().st_uid
    if uid not in {_ROOT, owner}:
        raise ConfigError(
            f"{socket} belongs to {_account(uid)}, its folder to {_account(owner)}; nothing was "
            "sent to it",
            remedy="ask the person who installed the daemon",
        )


def _open_to_others(folder: Path) -> Path | None:
    """Return a folder on the way to a socket in which somebody else may put one, or None."""
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return folder
    return next((above for above in folder.parents if above.stat().st_mode & stat.S_IWOTH), None)


def _account(uid: int) -> str:
    from daemon.access import account_name  # here, because a submission pays for each import

    return f"{account_name(uid)} (user {uid})"
