"""The states of jobs and attempts, and which count as over."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life."""

    HELD = "held"
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """``RUNNING``, or how the attempt ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"


class Wish(StrEnum):
    """What a user has asked of a running job; the worker looks at every tick."""

    CANCEL = "cancel"
    FINISH = "finish"


class DownloadState(StrEnum):
    """How far the download of a model is."""

    PENDING = "pending"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"


ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
NOT_STARTED = frozenset({JobState.HELD, JobState.WAITING, JobState.QUEUED, JobState.PAUSED})
