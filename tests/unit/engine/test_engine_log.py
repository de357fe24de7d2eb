from __future__ import annotations

import os
from pathlib import Path

from workers.engine.handle import _MAX_LOG, _open_log


def test_a_log_goes_on_until_it_is_long_and_one_older_is_kept(tmp_path: Path) -> None:
    log, older = tmp_path / "engine.log", tmp_path / "engine.log.1"
    for words in (b"first ", b"second"):
        with _open_log(log) as output:
            output.write(words)
    assert log.read_bytes() == b"first second"
    assert not older.exists()

    os.truncate(log, _MAX_LOG + 1)
    older.write_bytes(b"oldest")
    with _open_log(log) as output:
        output.write(b"third")

    assert log.read_bytes() == b"third"
    assert log.stat().st_mode & 0o777 == 0o600
    assert older.stat().st_size == _MAX_LOG + 1
