"""Every default of studioq in one place, with its unit and its reason.

Defaults of a job's own options stand in ``daemon.specs`` beside the option they belong to.
Standard library only: the thin client imports this.
"""

from __future__ import annotations

# Shared-machine configuration, written by ``studioq daemon install`` and read by every client.
SYSTEM_CONFIG = "/etc/studioq.toml"

# The longest path of a Unix socket, bytes without the final zero: 104 on macOS, 108 on Linux.
MAX_SOCKET_PATH = 103

# The RQ queue that holds the numbers of the waiting jobs, and the list the worker sleeps on.
QUEUE_NAME = "studioq"
WAKE_KEY = "studioq:wake"

# Seconds the worker sleeps on the wake list before it asks the ledger anyway.
WAKE_TIMEOUT = 1.0

# Seconds between two looks of the daemon at what should run and what should be queued.
SUPERVISE_EVERY = 2.0
RECONCILE_EVERY = 5.0

# Seconds the ledger's writer rests between transactions, so that a second process gets its turn.
WRITER_PAUSE = 0.002

# Milliseconds SQLite waits for another process's write transaction before "database is locked".
BUSY_TIMEOUT_MS = 5_000

# Seconds between two writes of a job's progress to the ledger (at most four a second).
PROGRESS_EVERY = 0.25

# Seconds an engine has to obey a cancel, stop or passed time limit before it is killed.
CANCEL_GRACE = 20.0
STOP_GRACE = 120.0

# Seconds between the engine's signs of life, and how many may be missed before it counts as hung.
HEARTBEAT_EVERY = 2.0
HEARTBEATS_MISSED = 30

# Interruptions in a row without a new checkpoint after which a job is failed instead of queued
# again.
MAX_INTERRUPTIONS = 3

# Fair share: seconds after which past GPU use counts half (a working day's memory, as Slurm's
# PriorityDecayHalfLife is a week's on a cluster), and the bonus of a job whose model is loaded,
# in GPU-seconds of use it may jump ahead by (roughly the loading time it saves).
USAGE_HALF_LIFE = 8 * 3600.0
WARM_MODEL_BONUS = 60.0

# Seconds of waiting of the oldest job of a priority after which the warm model's bonus is gone.
WARM_BONUS_FADES = 600.0

# Bytes: the most a request body of JSON, one uploaded file, and one user's unused uploads may have.
MAX_JSON_BODY = 4 * 2**20
MAX_UPLOAD = 64 * 2**30

# Bytes of the disk that uploads leave free, so that the ledger can always be written.
SPARE_DISK = 256 * 2**20

# Seconds an uploaded file is kept while no job cites it.
UPLOAD_KEPT = 24 * 3600.0

# Priority levels: what the user writes, what the ledger stores, higher first.
PRIORITIES = {"low": -10, "normal": 0, "high": 10}

# Backoff of a restarted child, seconds: first, factor, most; reset after it has lived this long.
RESTART_FIRST = 0.5
RESTART_FACTOR = 2.0
RESTART_MOST = 60.0
RESTART_RESET_AFTER = 60.0

# Fraction of the device's recommended working set that loaded models may use, and MLX's buffer
# cache.
MODEL_BUDGET = 0.75
BUFFER_CACHE_LIMIT = 2 * 2**30
