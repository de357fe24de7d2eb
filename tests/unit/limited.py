"""Readers of hostile files run in a process of their own, with little memory.

A file that crashes its reader, freezes it or makes it reserve memory then fails its own test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MEMORY = 2**29  # bytes of address space; an import of the readers takes a tenth of it
SECONDS = 60  # a safety net: refusals take a second or two

_PROGRAM = """
import importlib, json, resource, sys
from pathlib import Path

from daemon.errors import ModelError

memory, module, function, *paths = sys.argv[1:]
read = getattr(importlib.import_module(module), function)
resource.setrlimit(resource.RLIMIT_AS, (int(memory),) * 2)
for path in paths:
    try:
        read(Path(path), name="mine")
        print(json.dumps(None), flush=True)
    except ModelError as error:
        print(json.dumps(error.message if error.remedy else "no remedy"), flush=True)
"""


def messages(reader: str, *files: Path) -> list[str]:
    """Return what ``daemon.MODULE.FUNCTION`` says when it refuses each of the files."""
    module, _, function = f"daemon.{reader}".rpartition(".")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(MEMORY), module, function, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-1000:], done.stderr[-1000:])
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(files)
    assert None not in found, f"{files[found.index(None)].name} was accepted"
    return found
