"""Which modules a fresh interpreter has loaded after an import: the layers, as they really are.

import-linter checks the contracts of pyproject.toml in CI; it does not see what a third-party
package imports in turn, nor whether an import inside a function runs at import time.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"mlx", "mlx_lm", "rq", "redis", "sqlalchemy", "alembic", "transformers", "numpy"}
SERVER = {"fastapi", "uvicorn", "pydantic", "starlette"}

ALLOWED = {
    "daemon.doctor": frozenset({"daemon"}),
    "daemon.checks": frozenset({"daemon"}),
    "daemon.service": frozenset({"daemon"}),
    "daemon.errors": frozenset({"daemon"}),
    "daemon.locate": frozenset({"daemon", "platformdirs"}),
    "daemon.client": frozenset({"daemon"}),
    "daemon.autostart": frozenset({"daemon"}),
}


def loaded_by(module: str) -> frozenset[str]:
    """Return the top-level names, standard library aside, that importing ``module`` adds."""
    program = (
        "import json, sys; before = set(sys.modules); "
        f"import {module}; "
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(json.dumps(sorted(names - sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return frozenset(json.loads(done.stdout))


@pytest.mark.parametrize("module", ALLOWED)
def test_a_light_module_stays_light(module: str) -> None:
    assert loaded_by(module) <= ALLOWED[module]


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("daemon.specs", HEAVY | SERVER - {"pydantic"} | {"workers"}),
        ("daemon.submission", {"PIL", "numpy", "mlx", "workers"}),
        ("daemon.scheduler", HEAVY - {"sqlalchemy"} | SERVER | {"workers"}),
        ("workers.engine.main", HEAVY | SERVER - {"pydantic"}),
        ("workers.events", HEAVY | SERVER),
        ("workers.kinds", HEAVY | SERVER - {"pydantic"}),
        ("tui", HEAVY | SERVER | {"workers"}),
    ],
)
def test_a_module_leaves_heavy_packages_alone(module: str, forbidden: set[str]) -> None:
    assert not loaded_by(module) & forbidden
