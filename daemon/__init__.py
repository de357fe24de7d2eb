"""The front door of studioq: command line, HTTP API, ledger, queue and scheduler.

Nothing in this package imports MLX: the daemon must start in a fraction of a second and must never
touch the GPU, which belongs to the engine alone.
"""

__version__ = "0.1.0"
