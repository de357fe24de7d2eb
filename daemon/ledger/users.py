"""Users by the uid that the kernel reported, and their decayed use of the GPU.

Past use halves every ``defaults.USAGE_HALF_LIFE`` seconds: usage(t) = usage(t0) * 2^(-(t - t0) /
T), the decay that Slurm's fair-share factor uses (PriorityDecayHalfLife in its multifactor plugin).
"""

from __future__ import annotations

import math
from typing import cast

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session

from daemon import defaults
from daemon.ledger.tables import User

_BY_UID = select(User).where(User.uid == bindparam("uid"))
_USERS = cast("Table", User.__table__)
_CHARGE = (
    update(_USERS)
    .where(_USERS.c.id == bindparam("user"))
    .values(gpu_seconds=bindparam("total"), gpu_seconds_at=bindparam("now"))
)


def ensure_user(session: Session, *, uid: int, name: str, now: float) -> User:
    """Return the user with this uid, made or renamed if needed."""
    user = session.scalar(_BY_UID, {"uid": uid})
    if user is None:
        user = User(uid=uid, name=name, created_at=now, gpu_seconds=0.0, gpu_seconds_at=now)
        session.add(user)
        session.flush()
    elif user.name != name:
        user.name = name
    return user


def decayed(seconds: float, since: float, now: float) -> float:
    """Return what ``seconds`` of use at time ``since`` still count at ``now``."""
    halvings = max(0.0, now - since) / defaults.USAGE_HALF_LIFE
    return seconds * math.pow(0.5, halvings)


def charge(
    session: Session, user_id: int, account: tuple[float, float], *, seconds: float, now: float
) -> None:
    """Add ``seconds`` of GPU time to the user's account, which was (seconds, as of) before."""
    total = decayed(*account, now) + seconds
    session.connection().execute(_CHARGE, {"user": user_id, "total": total, "now": now})


def usage_by_user(session: Session, now: float) -> dict[int, float]:
    """Return the decayed GPU-seconds of every user."""
    rows = session.execute(select(User.id, User.gpu_seconds, User.gpu_seconds_at))
    return {user: decayed(seconds, at, now) for user, seconds, at in rows}
