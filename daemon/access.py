"""Who may see and do what: the owner of a job, an admin, and everybody else.

The rule it protects: rights follow from the peer's uid and the daemon's configuration alone. Every
question of this kind is asked here, so that no route can answer it differently.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection
from dataclasses import dataclass, field

from daemon import defaults
from daemon.errors import ForbiddenError


@dataclass(frozen=True, kw_only=True)
class Person:
    """A peer of the daemon's socket: the uid that the kernel reported, its name, its rights."""

    uid: int
    name: str
    admin: bool = False

    def owns(self, uid: int) -> bool:
        """Return whether something of user ``uid`` is this person's own."""
        return self.uid == uid

    def may_read(self, uid: int, *, shared: bool) -> bool:
        """Return whether log, artifacts and metrics of a job of user ``uid`` are open to them."""
        return shared or self.may_change(uid)

    def may_change(self, uid: int) -> bool:
        """Return whether they may cancel or edit a job of user ``uid`` and read its spec."""
        return self.admin or self.owns(uid)


@dataclass(frozen=True, kw_only=True)
class People:
    """Turns a uid into a person; names come from the account database and are kept."""

    admins: Collection[str] = ()
    daemon_uid: int = field(default_factory=os.getuid)
    _names: dict[int, str] = field(default_factory=dict, repr=False)

    def person(self, uid: int) -> Person:
        """Return the person behind ``uid``; an account without a name is called by its number."""
        name = self._names.get(uid)
        if name is None:
            name = self._names[uid] = account_name(uid)
        admin = uid in {0, self.daemon_uid} or name in self.admins
        return Person(uid=uid, name=name, admin=admin)


def account_name(uid: int) -> str:
    """Return the account's name, or ``uid-N`` where the system knows none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def require_change(person: Person, uid: int, *, job: int, owner: str) -> None:
    """Let the owner and admins pass.

    Raises:
        ForbiddenError: the job is somebody else's.
    """
    if not person.may_change(uid):
        raise ForbiddenError(
            f"job {job} belongs to {owner}; you are {person.name}",
            remedy=f"ask {owner}, or an admin of this daemon",
        )


def require_read(person: Person, uid: int, *, shared: bool, job: int, owner: str) -> None:
    """Let those pass who may read the job's log, metrics and artifacts.

    Raises:
        ForbiddenError: the job is somebody else's and not shared.
    """
    if not person.may_read(uid, shared=shared):
        raise ForbiddenError(
            f"job {job} belongs to {owner} and is not shared; you are {person.name}",
            remedy=f"ask {owner} to submit it with --share, or an admin of this daemon",
        )


def require_admin(person: Person, action: str) -> None:
    """Let admins pass.

    Raises:
        ForbiddenError: they are none.
    """
    if not person.admin:
        raise ForbiddenError(
            f"{action} needs an admin; you are {person.name}",
            remedy="ask the daemon's owner, who can add you to admins in its config.toml",
        )


def require_priority(person: Person, level: str) -> None:
    """Let admins choose every priority, and everybody all but the high ones.

    Raises:
        ForbiddenError: the level is above normal and they are no admin.
    """
    if defaults.PRIORITIES[level] > defaults.PRIORITIES["normal"] and not person.admin:
        raise ForbiddenError(
            f"priority {level} needs an admin; you are {person.name}",
            field="priority",
            remedy="choose --priority normal, or ask an admin: studioq priority N high",
        )
