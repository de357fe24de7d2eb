"""The tab that shows a job's log."""

from tui.log.pane import LogPane

__all__ = ["LogPane"]
