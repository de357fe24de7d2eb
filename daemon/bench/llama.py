"""llama.cpp's own benchmark of the same GGUF file, where its program is on the PATH.

The rule this module protects: the number is llama-bench's own, of text generation alone (``tg``),
and what is not understood of its output is an error and no number.

The output is documented in llama.cpp, tools/llama-bench/README.md, "JSON": an array of tests, each
with ``n_prompt``, ``n_gen`` and, for each repetition, tokens per second in ``samples_ts``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.bench.record import Figure
from daemon.errors import StudioqError

PROGRAM = "llama-bench"
KEY = "llama.tokens_per_sec"


class LlamaBenchError(StudioqError):
    """llama-bench failed, or said something that is not understood."""

    code = "llama_bench"


@dataclass(frozen=True, kw_only=True)
class LlamaRun:
    """What llama-bench measured: the rate of each repetition, its build and its backends."""

    figure: Figure
    build: str
    backends: str


def find_file(model: Any) -> Path | None:
    """Return the one GGUF file of a model as the daemon lists it; None if it has none or several.

    ``model``: None where the daemon lists no such model.
    """
    if model is None or model["format"] != "gguf" or not model["path"]:
        return None
    path = Path(model["path"])
    if path.is_file():
        return path
    found = sorted(path.glob("*.gguf"))
    return found[0] if len(found) == 1 else None


def find_program() -> str | None:
    """Return the path of llama-bench, None where it is not on the PATH."""
    return shutil.which(PROGRAM)


def run(file: Path, *, tokens: int, repeats: int) -> LlamaRun:
    """Run llama-bench on a file.

    Raises:
        LlamaBenchError: it is not there, or failed.
    """
    program = find_program()
    if program is None:
        raise LlamaBenchError(f"there is no {PROGRAM} on the PATH", remedy="install llama.cpp")
    words = ["-m", str(file), "-p", "0", "-n", str(tokens), "-r", str(repeats), "-o", "json"]
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
        raise LlamaBenchError(
            f"{PROGRAM} ended with status {done.returncode}: {said[0]}",
            remedy=f"try it: {PROGRAM} {' '.join(words)}",
        )
    return parse(done.stdout)


def parse(text: str) -> LlamaRun:
    """Read the output of ``llama-bench -o json``.

    Raises:
        LlamaBenchError: it is not what the README says.
    """
    try:
        tests = json.loads(text)
        test = next(test for test in tests if test["n_gen"] and not test["n_prompt"])
        values = tuple(float(value) for value in test["samples_ts"])
    except (ValueError, TypeError, KeyError, StopIteration) as error:
        raise _not_understood(f"{type(error).__name__}: {error}") from None
    if not values or min(values) <= 0:
        raise _not_understood(f"samples_ts is {list(values)}")
    return LlamaRun(
        figure=Figure(key=KEY, unit="tok/s", values=values),
        build=f"{test.get('build_commit', '?')} ({test.get('build_number', '?')})",
        backends=str(test.get("backends", "?")),
    )


def _not_understood(why: str) -> LlamaBenchError:
    return LlamaBenchError(
        f"the JSON of {PROGRAM} has no test of text generation: {why}",
        remedy="its form may have changed; leave it off the PATH to do without",
    )
