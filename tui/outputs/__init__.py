"""The Outputs tab: what a job has made, seen, read, saved and opened.

``OutputsPane`` is the tab; ``terminal.prepare`` is called once before the app runs, so that
pictures are drawn by the best means the terminal has. The rule this package protects: what is shown
comes from other people and from models, and is only ever shown, within bounds.
"""

from tui.outputs.pane import OutputsPane
from tui.outputs.terminal import prepare

__all__ = ["OutputsPane", "prepare"]
