"""A new job: choose its kind, fill the form, send it.

The rule this module protects: nothing that was typed is lost. A refusal leaves the form as it is, a
change of kind keeps the form of the other one, and leaving asks first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Footer, Input, Label, OptionList, Select, Static
from textual.widgets.option_list import Option

from daemon.errors import StudioqError
from tui.confirm import Confirm
from tui.forms.command import command_line
from tui.forms.fields import Field, fields_of, kinds_of, request_fields
from tui.forms.filling import entries_of
from tui.forms.material import Material, read_known, read_material, troubles
from tui.forms.news import Doing, Failed, Learned, Loaded, Queued
from tui.forms.offers import Known, Offer, Source, source_of
from tui.forms.part import FormPart
from tui.forms.preview import Preview
from tui.forms.row import FieldRow
from tui.forms.sending import Submission, send
from tui.pane import Connect


class NewJobScreen(ModalScreen[int | None]):
    """A form for a new job; dismissed with its number, or None where none was queued.

    Args:
        connect: opens a client of one's own.
        kind: the kind of the job; None: it is chosen first.
        start_from: the number of a job whose spec fills the form.
    """

    HELP = """\
## A new job

Only what you set is sent; grey words say what counts otherwise. **tab** and **enter** go to the
next field, **shift+tab** goes back. **ctrl+s** sends the job. What the daemon refuses is said
beside the field, and nothing that you typed is lost.
"""
    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012 - as Screen has it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "ctrl+s,ctrl+enter", "submit", "Send", key_display="^s", priority=True, id="form.submit"
        ),
        Binding("escape", "leave", "Leave", id="form.leave"),
        Binding("ctrl+o", "more", "More fields", id="form.more"),
        Binding("ctrl+y", "copy", "Copy command", id="form.copy"),
        Binding("y", "copy", "Copy command", show=False, id="form.copy_plain"),
        Binding("f5", "load", "Ask again", show=False, id="form.load"),
    ]
    DEFAULT_CSS = """
    NewJobScreen { align: center middle; }
    NewJobScreen > #dialog {
        width: 100%; max-width: 150; height: 100%; max-height: 60; background: $surface;
    }
    NewJobScreen.-wide FieldRow { grid-size: 3; grid-columns: 22 5fr 4fr; }
    NewJobScreen.-wide FieldRow > .about { column-span: 1; padding-left: 1; }
    NewJobScreen.-wide FieldRow > .complaint { column-span: 3; padding-left: 23; }
    NewJobScreen #head { height: 1; background: $panel; padding: 0 1; }
    NewJobScreen #head > #title { width: auto; text-style: bold; color: $text-primary; }
    NewJobScreen #head > #kind { width: 1fr; margin-left: 2; }
    NewJobScreen #notice { display: none; height: auto; max-height: 6; padding: 0 1; }
    NewJobScreen #notice.-shown { display: block; }
    NewJobScreen #notice.-error { color: $text-error; background: $error-muted; text-style: bold; }
    NewJobScreen #kinds {
        text-wrap: nowrap; text-overflow: ellipsis;
        display: none; height: auto; border: none; padding: 1 1;
    }
    NewJobScreen.-choosing #kinds { display: block; }
    NewJobScreen.-choosing #kind, NewJobScreen.-choosing #buttons,
    NewJobScreen.-choosing Preview { display: none; }
    NewJobScreen #fields { height: 1fr; scrollbar-gutter: stable; }
    NewJobScreen #buttons { height: 1; margin: 0 1; }
    NewJobScreen #buttons > Button { margin-right: 2; }
    NewJobScreen #buttons > #doing { width: 1fr; color: $text-muted; }
    """

    def __init__(
        self, connect: Connect, *, kind: str | None = None, start_from: int | None = None
    ) -> None:
        super().__init__()
        self._connect = connect
        self._kind = kind
        self._start_from = start_from
        self._material: Material | None = None
        self._known = Known()
        self._specs: dict[str, FormPart] = {}
        self._request: FormPart | None = None
        self._busy = False
        self._preview_due = False

    def compose(self) -> ComposeResult:
        """Lay out what is there before the daemon has answered."""
        with Vertical(id="dialog"):
            with Horizontal(id="head"):
                yield Label("New job", id="title", markup=False)
            yield Static("asking the daemon…", id="notice", classes="-shown", markup=False)
            yield OptionList(id="kinds", markup=False)
            yield VerticalScroll(id="fields", can_focus=False)
            yield Preview()
            with Horizontal(id="buttons"):
                yield Button("Send", id="send", variant="primary", compact=True)
                yield Button("Leave", id="leave", compact=True)
                yield Label("", id="doing", markup=False)
            yield Footer()

    def on_mount(self) -> None:
        """Ask the daemon."""
        self.add_class("-choosing")
        self.action_load()

    # What the form is made of

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done now."""
        del parameters
        if action == "load":
            return self._material is None
        if action in {"submit", "more", "copy"}:
            return self._part is not None
        return True

    def action_load(self) -> None:
        """Ask the daemon for what the form is made of."""
        self._say("asking the daemon…")
        self._load()

    @work(thread=True, exclusive=True, group="load")
    def _load(self) -> None:
        try:
            with self._connect() as client:
                self.post_message(Loaded(read_material(client, self._start_from)))
                self.post_message(Learned(read_known(client)))
        except StudioqError as error:
            self.post_message(Failed(error))

    @on(Loaded)
    async def _show_form(self, event: Loaded) -> None:
        """Show the form, or the kinds to choose from."""
        self._material = material = event.material
        kinds = kinds_of(material.schema)
        trouble = troubles(material)
        self._say(trouble or "", error=trouble is not None)
        if material.job is not None:
            self.query_one("#title", Label).update(f"New job, like job {material.origin}")
        fields = request_fields(material.schema)
        self._request = FormPart(
            fields, entries_of(fields, material.job or {"spec": {}}), self._source, material.origin
        )
        wanted = self._kind or (material.job or {}).get("kind")
        if wanted is None and len(kinds) == 1:
            wanted = next(iter(kinds))
        if wanted in kinds:
            await self._show_kind(str(wanted))
        else:
            self._list_kinds(kinds)
        self.refresh_bindings()

    def _list_kinds(self, kinds: dict[str, str]) -> None:
        listed = self.query_one("#kinds", OptionList)
        width = max(map(len, kinds), default=0)
        for kind, about in kinds.items():
            line = Text(f"{kind:<{width}}  ", style="bold", no_wrap=True, overflow="ellipsis")
            listed.add_option(Option(line.append(about, style="not bold dim"), id=kind))
        listed.highlighted = 0
        listed.focus()

    @on(Learned)
    def _keep_known(self, event: Learned) -> None:
        """Keep what the fields can offer; they ask for it when one types."""
        self._known = event.known

    def _source(self, field: Field) -> Source | None:
        """Return what tells a field's offers: whatever is known when it is asked."""
        if source_of(field.control, "", self._known) is None:
            return None
        kind = self._kind or ""

        def offers(text: str) -> Sequence[Offer]:
            source = source_of(field.control, kind, self._known)
            return source(text) if source else ()

        return offers

    # The kind

    @on(OptionList.OptionSelected, "#kinds")
    async def _kind_chosen(self, event: OptionList.OptionSelected) -> None:
        await self._show_kind(str(event.option.id))

    @on(Select.Changed, "#kind")
    async def _kind_changed(self, event: Select.Changed) -> None:
        if event.value == event.select.value and isinstance(event.value, str):
            await self._show_kind(event.value)

    async def _show_kind(self, kind: str) -> None:
        """Show the form of a kind; those of the others keep what was typed."""
        if self._material is None or (kind == self._kind and self._part is not None):
            return
        self._kind = kind
        self.remove_class("-choosing")
        if not self.query("#kind"):
            await self._mount_choice(kind, kinds_of(self._material.schema))
        fields = self.query_one("#fields")
        if kind not in self._specs:
            self._specs[kind] = self._make(kind, self._material)
            await fields.mount(self._specs[kind], before=0)
        if self._request is not None and not self._request.is_attached:
            await fields.mount(self._request)
        for name, part in self._specs.items():
            part.display = name == kind
        self.refresh_bindings()
        self._renew_preview()
        self._focus_first(self._specs[kind])

    async def _mount_choice(self, kind: str, kinds: dict[str, str]) -> None:
        """Put the choice of the kind into the first line, where it can still be changed."""
        options = [(f"{name}: {about}", name) for name, about in kinds.items()]
        choice = Select(options, id="kind", allow_blank=False, value=kind, compact=True)
        await self.query_one("#head").mount(choice)

    def _make(self, kind: str, material: Material) -> FormPart:
        fields = fields_of(material.schema, kind)
        job = material.job
        same = job is not None and job["kind"] == kind
        entries = entries_of(fields, job) if job is not None and same else {}
        return FormPart(fields, entries, self._source, material.origin)

    def _focus_first(self, part: FormPart) -> None:
        empty = (row for row in part.rows if row.field.required and not row.given)
        row = next(empty, part.rows[0])
        self.call_after_refresh(row.focus_input)

    @property
    def _part(self) -> FormPart | None:
        """The spec's part of the form that is shown."""
        return self._specs.get(self._kind or "")

    @property
    def _parts(self) -> list[FormPart]:
        return [part for part in (self._part, self._request) if part is not None]

    @property
    def _all_parts(self) -> list[FormPart]:
        """The parts of all kinds that were looked at."""
        request = [self._request] if self._request and self._request.is_attached else []
        return [*self._specs.values(), *request]

    # While one writes

    def on_field_row_edited(self, event: FieldRow.Edited) -> None:
        """Renew what depends on the values, once for however many changes."""
        event.stop()
        self._renew_preview()

    def _renew_preview(self) -> None:
        if not self._preview_due:
            self._preview_due = True
            self.call_after_refresh(self._show_preview)

    def _show_preview(self) -> None:
        self._preview_due = False
        if not self.is_attached or self._material is None:
            return
        fields = [field for part in self._parts for field in part.fields]
        entries = {name: entry for part in self._parts for name, entry in part.entries.items()}
        command = command_line(self._kind or "", fields, entries, self._material.origin)
        self.query_one(Preview).show(command)
        for part in self._parts:
            part.count()

    @on(Input.Submitted)
    def _go_on(self, event: Input.Submitted) -> None:
        event.stop()
        self.focus_next()

    def action_copy(self) -> None:
        """Copy the command."""
        self.query_one(Preview).action_copy()

    async def action_more(self) -> None:
        """Open all groups, or close them where all are open."""
        sections = [section for part in self._parts for section in part.sections]
        closed = any(not section.is_open for section in sections)
        for section in sections:
            await section.set_open(closed)

    # Sending

    @on(Button.Pressed, "#send")
    async def action_submit(self) -> None:
        """Send the job, if all that was typed can be read."""
        if self._busy or self._kind is None or self._part is None or self._request is None:
            return
        self._say("")
        read = {part: await part.read() for part in (self._part, self._request)}
        for part in read:
            if wrong := [row for row in part.rows if row.is_wrong]:
                await part.reveal(wrong[0])
                return
        self._set_busy("sending")
        self._send(Submission(kind=self._kind, spec=read[self._part], request=read[self._request]))

    @work(thread=True, exclusive=True, group="send")
    def _send(self, job: Submission) -> None:
        try:
            with self._connect() as client:
                answer = send(client, job, self._tell)
        except StudioqError as error:
            self.post_message(Failed(error))
        else:
            self.post_message(Queued(answer["id"], answer.get("notes", ())))

    def _tell(self, what: str) -> None:
        self.post_message(Doing(what))

    def _set_busy(self, doing: str) -> None:
        self._busy = bool(doing)
        self.query_one("#send", Button).disabled = self._busy
        self.query_one("#doing", Label).update(f"{doing}…" if doing else "")

    @on(Doing)
    def _show_doing(self, event: Doing) -> None:
        """Say what takes its time."""
        self._set_busy(event.what)

    @on(Queued)
    def _give_back(self, event: Queued) -> None:
        """Give the number back; what is to be noted outlives this screen."""
        for note in event.notes:
            self.app.notify(note, title=f"job {event.number}")
        self.dismiss(event.number)

    @on(Failed)
    async def _show_refusal(self, event: Failed) -> None:
        """Show a refusal beside its field; what has none stands at the top."""
        self._set_busy("")
        error = event.error
        for part in self._parts:
            if row := part.row_at(error.field):
                await part.complain(row, error)
                return
        again = "" if self._material else "\n→ f5 asks again"
        remedy = f"\n→ {error.remedy}" if error.remedy else ""
        self._say(f"✗ {error.message}{remedy}{again}", error=True)

    def _say(self, what: str, *, error: bool = False) -> None:
        notice = self.query_one("#notice", Static)
        notice.update(what)
        notice.set_class(bool(what), "-shown")
        notice.set_class(error, "-error")

    # Leaving

    @on(Button.Pressed, "#leave")
    def action_leave(self) -> None:
        """Leave; ask first where something would be lost."""
        if self._busy:
            self.notify("the job is being sent; wait for the answer", severity="warning")
        elif any(part.edited for part in self._all_parts):
            self.app.push_screen(Confirm("Throw away what you typed?"), self._left)
        else:
            self.dismiss(None)

    def _left(self, sure: bool | None) -> None:
        if sure:
            self.dismiss(None)
