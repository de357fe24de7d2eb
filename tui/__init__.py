"""The terminal interface: the queue, the logs, the curves and the pictures.

The rule this package protects: it knows what the daemon's client tells and nothing else, and no
call to the daemon is made in the thread that draws.
"""
