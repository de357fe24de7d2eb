from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from daemon.errors import DiskFullError, UsageError
from daemon.filestore import FileStore, HashMismatchError, check_sha256

CONTENT = b"rows" * 1000
DIGEST = sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def files(store: FileStore) -> list[Path]:
    return [path for path in store.folder.rglob("*") if path.is_file()]


def test_a_finished_upload_has_its_hash_as_name(store: FileStore) -> None:
    with store.begin() as part:
        part.write(CONTENT[:7])
        part.write(CONTENT[7:])
        part.finish(DIGEST)
        store.adopt(part, DIGEST)

    assert files(store) == [store.path(DIGEST)]
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert part.bytes == len(CONTENT)


def test_another_hash_leaves_nothing(store: FileStore) -> None:
    with pytest.raises(HashMismatchError, match=DIGEST), store.begin() as part:
        part.write(CONTENT)
        part.finish("0" * 64)

    assert files(store) == []


def test_what_an_earlier_daemon_left_is_removed(store: FileStore) -> None:
    part = store.begin()
    part.write(CONTENT)
    part._file.close()

    store.remove_parts()

    assert files(store) == []


def test_removing_what_is_not_there_is_no_error(store: FileStore) -> None:
    store.remove(DIGEST)


def test_a_file_that_does_not_fit_is_refused(store: FileStore) -> None:
    store.check_space(1, spare=0)
    with pytest.raises(DiskFullError, match="MB free"):
        store.check_space(2**60, spare=0)


def test_an_upload_of_unknown_size_leaves_the_spare_space(store: FileStore) -> None:
    free = shutil.disk_usage(store.folder).free
    with pytest.raises(DiskFullError, match="MB stay free"), store.begin(spare=2 * free) as part:
        part.write(CONTENT)

    assert files(store) == []


@pytest.mark.parametrize("text", ["", "x", DIGEST.upper(), DIGEST + "0", DIGEST[:-1] + "\n"])
def test_what_is_no_hash(text: str) -> None:
    with pytest.raises(UsageError):
        check_sha256(text)
