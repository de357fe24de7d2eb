"""Settings of the interpreter for a process that mostly waits and must then answer at once.

The rule this module protects: no thread of ours keeps another waiting longer than it must.
"""

from __future__ import annotations

import gc
import sys

# Seconds after which a waiting thread may ask for the interpreter (CPython's default is 5 ms, half
# of what a whole submission may take).
SWITCH_INTERVAL = 0.0005


def be_responsive() -> None:
    """Let threads take turns sooner, and spare the collector all that the start has made.

    To be called when the process has imported what it needs.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()
