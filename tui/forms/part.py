"""The fields of a spec, or of the request around it, in their groups.

The rule this module protects: a group is closed only while nothing in it needs to be seen. What is
closed costs nothing: its rows are made into widgets when it is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Label, Static

from daemon.errors import StudioqError
from tui.forms.entries import Entry
from tui.forms.fields import NOTHING, Field, Group, field_at
from tui.forms.offers import Source
from tui.forms.row import FieldRow

_CLOSED = (Group.MORE, Group.QUEUE)
_NAMED = 12


class SectionTitle(Static, can_focus=True):
    """The line that opens and closes a section."""

    HELP = "## More fields\n\n**enter**, **space** or a click opens and closes; **ctrl+o** all."
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "turn", "Open or close", id="form.section"),
    ]
    DEFAULT_CSS = """
    SectionTitle {
        height: 1; margin-top: 1; padding-left: 1; text-wrap: nowrap; text-overflow: ellipsis;
        color: $text-primary;
    }
    SectionTitle:hover { background: $block-hover-background; }
    SectionTitle:focus { background: $block-cursor-background; color: $block-cursor-foreground; }
    """

    class Toggled(Message):
        """Open what is closed, or the other way round."""

    def on_click(self) -> None:
        """Open or close."""
        self.action_turn()

    def action_turn(self) -> None:
        """Open or close."""
        self.post_message(self.Toggled())


class Section(Vertical):
    """Fields that are seldom needed; the title names them, and how many are set."""

    DEFAULT_CSS = "Section { height: auto; }"

    def __init__(self, group: Group, rows: Sequence[FieldRow]) -> None:
        super().__init__()
        self.rows = rows
        self.is_open = any(row.initial for row in rows)
        self._group = group
        self._title = SectionTitle(self._heading(), markup=False)

    def compose(self) -> ComposeResult:
        """Lay out the title, and the rows if something in them is set."""
        yield self._title
        if self.is_open:
            yield from self.rows

    def _heading(self) -> str:
        names = ", ".join(row.field.label.lower() for row in self.rows[:_NAMED])
        more = ", …" if len(self.rows) > _NAMED else ""
        given = sum(row.given for row in self.rows)
        there = f" ({given} set)" if given else ""
        return f"{'▾' if self.is_open else '▸'} {self._group}{there}: {names}{more}"

    async def set_open(self, is_open: bool) -> None:
        """Open the section, or close it; what was typed stays."""
        self.is_open = is_open
        if is_open and not self.rows[0].is_attached:
            await self.mount_all(self.rows)
        for row in self.rows:
            row.display = is_open
        self.count()

    def count(self) -> None:
        """Say how many fields are set."""
        heading = self._heading()
        if heading != self._title.content:
            self._title.update(heading)

    async def on_section_title_toggled(self, event: SectionTitle.Toggled) -> None:
        """Open or close."""
        event.stop()
        await self.set_open(not self.is_open)


class FormPart(Vertical):
    """Rows for ``fields``, filled with ``entries``; ``source`` tells what each can offer."""

    DEFAULT_CSS = """
    FormPart { height: auto; }
    FormPart > .group { color: $text-primary; text-style: bold; margin-top: 1; padding-left: 1; }
    """

    def __init__(
        self,
        fields: Sequence[Field],
        entries: Mapping[str, Entry],
        source: Callable[[Field], Source | None],
        origin: int | None = None,
    ) -> None:
        super().__init__()
        self.fields = fields
        self._rows = {
            field.name: FieldRow(field, entries.get(field.name, Entry()), source(field), origin)
            for field in fields
        }
        self.sections = [
            Section(group, rows) for group in _CLOSED if (rows := self._of_group(group))
        ]

    def _of_group(self, group: Group) -> list[FieldRow]:
        return [row for row in self._rows.values() if row.field.group is group]

    def compose(self) -> ComposeResult:
        """Lay out the groups."""
        for group in Group:
            rows = self._of_group(group)
            if rows and group not in _CLOSED:
                yield Label(group, classes="group")
                yield from rows
        yield from self.sections

    @property
    def rows(self) -> Sequence[FieldRow]:
        """The rows in their order."""
        return list(self._rows.values())

    @property
    def entries(self) -> dict[str, Entry]:
        """What the fields hold, by name."""
        return {name: row.entry for name, row in self._rows.items()}

    @property
    def edited(self) -> bool:
        """Whether anything was changed since the form was opened."""
        return any(row.edited for row in self._rows.values())

    async def complain(self, row: FieldRow, error: StudioqError) -> None:
        """Say beside a row what is wrong with it."""
        await self._open(row)
        await row.complain(error.message, error.remedy)
        row.focus_input()

    async def reveal(self, row: FieldRow) -> None:
        """Go to a row, which may lie in a closed section."""
        await self._open(row)
        row.focus_input()

    async def _open(self, row: FieldRow) -> None:
        for section in self.sections:
            if row in section.rows and not section.is_open:
                await section.set_open(True)

    def row_at(self, place: str | None) -> FieldRow | None:
        """Return the row that an error's place (``data.train``) is about."""
        field = field_at(self.fields, place)
        return None if field is None else self._rows[field.name]

    async def read(self) -> dict[str, Any]:
        """Return the values that were given; rows that cannot be read complain."""
        values = {}
        for name, row in self._rows.items():
            await row.check(missing=True)
            if not row.is_wrong and (value := row.value()) is not NOTHING:
                values[name] = value
        return values

    def count(self) -> None:
        """Say in the titles how many fields are set."""
        for section in self.sections:
            section.count()
