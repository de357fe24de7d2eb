"""``studioq doctor``: check this machine."""

from __future__ import annotations

from daemon.cli.command import command, json_option


@command("doctor", examples=("studioq doctor", "studioq doctor --json", "python3 daemon/doctor.py"))
@json_option
def doctor(as_json: bool) -> int:
    """Check Python, MLX, memory, Redis, ledger and disk; exit 1 if something needs mending."""
    from daemon.doctor import main

    return main(["--json"] if as_json else [])
