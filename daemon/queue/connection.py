"""How the daemon and the worker reach Redis.

The rule this module protects: Redis may be away or stuck, and nobody waits for it for long. A
command that fails on a kept connection is tried once more on a new one and then given up; the
ledger and the reconciler make good what was lost.
"""

from __future__ import annotations

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

# Seconds a command may take; a healthy server on the same machine answers in under a millisecond.
COMMAND_TIMEOUT = 1.0


def connect(url: str, *, timeout: float = COMMAND_TIMEOUT) -> Redis:
    """Return a client of the server at ``url`` (redis://, rediss://, unix://); connects later.

    A command raises ``redis.RedisError`` after ``timeout`` seconds at the latest. A command that
    waits by itself, such as BLPOP, needs a client with a longer one.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
