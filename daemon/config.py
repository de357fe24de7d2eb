"""The daemon's configuration: ``config.toml`` in the home, read once at the start.

The rule it protects: a wrong key or value stops the program with the file, the key and the value,
instead of being ignored. The worker reads the same file, so both see one truth.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from daemon import defaults
from daemon.errors import ConfigError
from daemon.locate import Paths
from daemon.models import SHIPPED_MODELS

_SCHEMES = ("redis", "rediss", "unix")


class Config(BaseModel):
    """What the owner of a home may set; every key has a default, so an empty file is complete."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    redis_url: Annotated[
        str | None,
        Field(
            description="A Redis server to use (redis://, rediss://, unix://); default: our own."
        ),
    ] = None
    model_roots: Annotated[
        tuple[Path, ...],
        Field(description="Further folders of models, looked through after the home's models/."),
    ] = ()
    admins: Annotated[
        tuple[str, ...],
        Field(description="Users who may do everything, beside root and the daemon's account."),
    ] = ()
    autostart: Annotated[
        bool, Field(description="Whether a submitting command may start this home's daemon.")
    ] = True
    model_budget: Annotated[
        float, Field(gt=0, le=1, description="Share of the device's memory for warm models.")
    ] = defaults.MODEL_BUDGET
    buffer_cache_bytes: Annotated[
        int, Field(ge=0, description="The most that MLX's buffer cache may keep.")
    ] = defaults.BUFFER_CACHE_LIMIT
    max_upload_bytes: Annotated[
        int, Field(ge=1, description="The largest uploaded file, and a user's unused uploads.")
    ] = defaults.MAX_UPLOAD

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in _SCHEMES:
            raise ValueError("a Redis address begins with redis://, rediss:// or unix://")
        return url

    @field_validator("model_roots")
    @classmethod
    def _absolute(cls, roots: tuple[Path, ...]) -> tuple[Path, ...]:
        expanded = tuple(root.expanduser() for root in roots)
        for root in expanded:
            if not root.is_absolute():
                raise ValueError(f"{root} is not an absolute path")
        return expanded

    def all_roots(self, paths: Paths) -> tuple[Path, ...]:
        """Return every model root: the home's own, where new models go, and last what we ship."""
        return (paths.models, *self.model_roots, SHIPPED_MODELS)

    def redis_address(self, paths: Paths) -> str:
        """Return the URL of the Redis server that daemon and worker talk to."""
        return self.redis_url or f"unix://{paths.redis_socket}"


def load_config(paths: Paths) -> Config:
    """Read the home's configuration; a missing file is an empty one.

    Raises:
        ConfigError: names the file, the key, its value and what is allowed.
    """
    return parse_config(_read(paths.config), source=paths.config)


def parse_config(settings: dict[str, Any], *, source: Path) -> Config:
    """Check ``settings``, which were read from ``source``."""
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise _refusal(error, source) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", remedy=f"correct or remove {path}"
        ) from error


def _refusal(error: ValidationError, source: Path) -> ConfigError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(Config.model_fields))
        return ConfigError(f"{source}: there is no key {key!r}", field=key, remedy=f"keys: {known}")
    reason = first["msg"].removeprefix("Value error, ")
    return ConfigError(
        f"{source}: {key} = {first['input']!r}: {reason}", field=key, remedy=f"correct {source}"
    )
