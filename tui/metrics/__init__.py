"""The metrics tab: curves of what a job has measured, and of another job beside them.

The rule this package protects: what is drawn is worked out in plain modules from immutable values,
and the widgets only show it. ``pane`` imports what needs numpy when there is something to draw.
"""

from tui.metrics.pane import MetricsPane

__all__ = ["MetricsPane"]
