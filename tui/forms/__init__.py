"""Forms for new jobs, made from the daemon's own schema of each kind.

The rule this package protects: a new field or kind of job needs no new code here. What a value
means is decided in plain modules (shapes, fields, entries, filling, command, offers, sending); the
widgets only take texts and show complaints.
"""

from tui.forms.screen import NewJobScreen

__all__ = ["NewJobScreen"]
