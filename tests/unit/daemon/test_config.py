from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import load_config
from daemon.errors import ConfigError
from daemon.locate import Paths
from daemon.models import SHIPPED_MODELS


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(home=tmp_path, runtime=tmp_path / "run")


def test_no_file_is_all_defaults(paths: Paths) -> None:
    config = load_config(paths)

    assert config.redis_url is None
    assert config.all_roots(paths) == (paths.models, SHIPPED_MODELS)
    assert config.redis_address(paths) == f"unix://{paths.redis_socket}"


def test_what_is_written_is_read(paths: Paths) -> None:
    paths.config.write_text(
        'redis_url = "redis://host:6379/0"\nmodel_roots = ["/models"]\nadmins = ["ann"]\n'
        "autostart = false\nmodel_budget = 0.5\n"
    )

    config = load_config(paths)

    assert config.redis_address(paths) == "redis://host:6379/0"
    assert config.all_roots(paths) == (paths.models, Path("/models"), SHIPPED_MODELS)
    assert (config.admins, config.autostart, config.model_budget) == (("ann",), False, 0.5)


@pytest.mark.parametrize(
    ("text", "key", "part"),
    [
        ("redis_uri = 'x'", "redis_uri", "no key"),
        ("redis_url = 'http://x'", "redis_url", "redis://"),
        ("model_roots = ['models']", "model_roots", "absolute"),
        ("model_budget = 2", "model_budget", "2"),
        ("model_budget = nan", "model_budget", "nan"),
        ("admins = 'ann'", "admins", "'ann'"),
        ("autostart = 'perhaps'", "autostart", "perhaps"),
        ("max_upload_bytes = 0", "max_upload_bytes", "0"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_key(
    paths: Paths, text: str, key: str, part: str
) -> None:
    paths.config.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load_config(paths)

    assert str(paths.config) in caught.value.message
    assert key in caught.value.message
    assert part in caught.value.message


def test_a_file_that_is_no_toml_is_named(paths: Paths) -> None:
    paths.config.write_text("redis_url = ")

    with pytest.raises(ConfigError, match=r"config\.toml cannot be read"):
        load_config(paths)
