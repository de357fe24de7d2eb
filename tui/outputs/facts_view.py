"""What is said of a file that is not shown itself.

The rule this module protects: hash and command stand there whole, to be copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from daemon.cli.units import size
from tui.outputs.files import fetch_command, use_of
from tui.outputs.safe import one_line

if TYPE_CHECKING:
    from daemon.client.answers import Artifact, JobLine


def facts(job: JobLine, artifact: Artifact) -> list[tuple[str, str]]:
    """Return what is known of a file, each with its label."""
    step = artifact.get("step")
    fetched, use = fetch_command(job["id"], artifact["name"]), use_of(job, artifact)
    rows = [
        ("name", one_line(artifact["name"])),
        ("kind", artifact["kind"]),
        ("step", "" if step is None else str(step)),
        ("size", f"{size(artifact['bytes'])} ({artifact['bytes']:,} bytes)"),
        ("sha256", artifact["sha256"]),
        ("attempt", str(artifact.get("attempt") or "")),
        ("use it", "" if use == fetched else use),
        ("fetch it", one_line(fetched)),
    ]
    return [(label, value) for label, value in rows if value]


class FactsView(VerticalScroll, can_focus=False):
    """Name, kind, step, size, hash, and how to use the file."""

    DEFAULT_CSS = """
    FactsView {
        padding: 0 1;
        scrollbar-size-vertical: 1;
        Horizontal { height: auto; }
        Static { width: 1fr; height: auto; }
        .label { width: 9; color: $text-primary; text-style: bold; }
    }
    """

    def show(self, job: JobLine, artifact: Artifact) -> None:
        """Show the facts of a file."""
        self.remove_children()
        self.mount(
            *(
                Horizontal(Static(Content(label), classes="label"), Static(Content(value)))
                for label, value in facts(job, artifact)
            )
        )
