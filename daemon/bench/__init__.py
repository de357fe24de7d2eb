"""``studioq bench``: the MLX tutorial's three tables, measured on this machine by ordinary jobs.

``plan`` says which jobs, ``jobs`` queues them and waits, ``measures`` reads their numbers,
``record`` is what is saved, ``tables``, ``compare`` and ``plot`` show it. What is measured beside
the queue, after its jobs have ended, is in ``bandwidth``, ``llama`` and ``rival``. It is a client
like any other: it imports nothing of the daemon's heavy half.
"""
