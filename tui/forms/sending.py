"""From what a form holds to a queued job: files first, then the job.

The rule this module protects: what goes wrong with a file is said of the field that names it. It
runs in a thread of its own, with a client of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.errors import StudioqError, UsageError
from tui.forms.entries import Upload
from tui.forms.shapes import Control

if TYPE_CHECKING:
    from daemon.client import Client
    from daemon.client.answers import Accepted


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job as the form has it; an ``Upload`` stands where files have yet to travel."""

    kind: str
    spec: Mapping[str, Any]
    request: Mapping[str, Any]


def send(client: Client, job: Submission, say: Callable[[str], None]) -> Accepted:
    """Upload what the job names and queue it; ``say`` is told what takes long.

    Raises:
        StudioqError: the daemon's refusal, or a file that cannot be read; ``field`` says where.
    """
    from daemon.cli.submission import hub_token

    spec = {name: _sent(client, name, value, say) for name, value in job.spec.items()}
    say("queueing the job")
    model = spec.get("model")
    token = hub_token(model) if isinstance(model, str) else None
    return client.submit(job.kind, spec, hub_token=token, **dict(job.request))


def _sent(client: Client, name: str, value: Any, say: Callable[[str], None]) -> Any:
    if not isinstance(value, Upload):
        return value
    if value.texts:
        say(f"sending {', '.join(Path(text).name for text in value.texts)}")
    try:
        return _uploaded(client, value)
    except StudioqError as error:
        error.field = name
        raise
    except OSError as error:
        raise UsageError(
            f"{error.filename or name}: {error.strerror or error}",
            field=name,
            remedy="check the file, and send again",
        ) from None


def _uploaded(client: Client, value: Upload) -> Any:
    match value.control:
        case Control.DATA:
            return client.training_data(value.texts[0])
        case Control.ADAPTER:
            return client.adapter(value.texts[0])
        case Control.LORAS:
            return [*value.kept, *(client.lora(text) for text in value.texts)]
        case Control.FILES:
            return [*value.kept, *(client.upload(text) for text in value.texts)]
    return client.upload(value.texts[0])
