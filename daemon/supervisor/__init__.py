"""The processes beside the daemon: Redis and the worker, started, adopted, watched and ended.

The rule it protects: they outlive the daemon, so that restarting it ends nobody's training; and
there are never two of one kind, so nothing is started before its predecessor is known to be dead.
"""
