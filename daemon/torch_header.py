"""What a PyTorch checkpoint (``torch.save`` since 1.6) declares, read without PyTorch.

The rule this module protects: opening a checkpoint costs its index alone, which is followed for its
tensors and never run (``daemon.torch_pickle``), and what is cut short is known from the directory
of the archive. Daemon and engine read with it.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from daemon.errors import ModelError
from daemon.regular_files import open_regular
from daemon.safetensors_header import DAMAGED, TensorInfo, WeightsHeader
from daemon.torch_pickle import MOST_INDEX, Storage, TensorPlace, read_tensor_places
from daemon.zip_archives import ZIP_ERRORS, open_zip, record_start

_INDEX = "data.pkl"
_WIDTHS = {"F16": 2, "BF16": 2, "F32": 4}


@dataclass(frozen=True, kw_only=True)
class TorchIndex:
    """A checkpoint's tensors by name, and where each storage starts in the file.

    ``starts``: bytes from the start of the file, by the storage's key.
    """

    tensors: Mapping[str, TensorPlace]
    starts: Mapping[str, int]

    def info(self, name: str) -> TensorInfo:
        """Return a tensor's type, shape, place in the file, and size in memory."""
        place = self.tensors[name]
        width = _WIDTHS[place.storage.dtype]
        return TensorInfo(
            name=name,
            dtype=place.storage.dtype,
            shape=place.shape,
            offset=self.starts[place.storage.key] + place.offset * width,
            bytes=math.prod(place.shape) * width,
        )

    def infos(self) -> Iterator[TensorInfo]:
        """Yield ``info`` of all tensors."""
        return map(self.info, self.tensors)


def read_torch_index(path: Path, *, name: str | None = None) -> TorchIndex:
    """Read the index of a checkpoint and check that all its tensors lie inside the file.

    ``name`` is what messages call the file, if not by its own name.

    Raises:
        ModelError: it is no such archive, is truncated, packed or big-endian, or its index names
            what no tensor needs.
        OSError: it cannot be opened, or is no regular file.
    """
    name = name or path.name
    try:
        with open_zip(path) as (archive, file):
            return _read(name, archive, file)
    except ZIP_ERRORS as error:
        raise _no_archive(name, path, error) from None


def read_torch_header(path: Path, *, name: str | None = None) -> WeightsHeader:
    """Return what ``read_torch_index`` finds as all kinds of weights files are told of.

    The tensors' offsets are those of their numbers, so two tensors over one storage have one.
    """
    index = read_torch_index(path, name=name)
    return WeightsHeader(tensors=tuple(index.infos()), data_start=0)


def _read(name: str, archive: zipfile.ZipFile, file: IO[bytes]) -> TorchIndex:
    root = _root(archive)
    _check_byte_order(name, archive, root)
    tensors = read_tensor_places(name, _index(archive, root))
    starts: dict[str, int] = {}
    for tensor, place in tensors.items():
        record = archive.NameToInfo.get(f"{root}/data/{place.storage.key}")
        if record is None:
            raise zipfile.BadZipFile(f"the numbers of {tensor[:80]} are not in it")
        _check_record(name, record, place.storage)
        if place.storage.key not in starts:
            starts[place.storage.key] = record_start(file, record)
    return TorchIndex(tensors=tensors, starts=starts)


def _root(archive: zipfile.ZipFile) -> str:
    """Return the folder in the archive that holds the index; torch names it after the file."""
    found = [name.split("/") for name in archive.namelist() if name.endswith(f"/{_INDEX}")]
    roots = [parts[0] for parts in found if len(parts) == 2]
    if len(roots) != 1:
        raise zipfile.BadZipFile(f"it has {len(roots)} {_INDEX}, and not one")
    return roots[0]


def _index(archive: zipfile.ZipFile, root: str) -> bytes:
    record = archive.getinfo(f"{root}/{_INDEX}")
    if record.file_size > MOST_INDEX:
        raise zipfile.BadZipFile(
            f"its {_INDEX} has {record.file_size} bytes; at most {MOST_INDEX} are read"
        )
    return archive.read(record)


def _check_byte_order(name: str, archive: zipfile.ZipFile, root: str) -> None:
    """Refuse big-endian numbers; files from before torch 2.1 do not say, and are little-endian."""
    order, record = b"little", archive.NameToInfo.get(f"{root}/byteorder")
    if record is not None:
        with archive.open(record) as opened:
            order = opened.read(16).strip()
    if order != b"little":
        raise ModelError(
            f"{name} has its numbers in the byte order {order.decode('ascii', 'replace')!r}",
            remedy="save the weights on a little-endian machine, as all current Macs and PCs are",
        )


def _check_record(name: str, record: zipfile.ZipInfo, storage: Storage) -> None:
    """Check that a record holds all numbers of a storage, as they are."""
    if record.compress_type != zipfile.ZIP_STORED:
        raise ModelError(
            f"{name} was packed again: {record.filename[:80]} in it is compressed",
            remedy="unpack and save it with torch.save, which stores tensors as they are",
        )
    needed = storage.elements * _WIDTHS[storage.dtype]
    if min(record.file_size, record.compress_size) < needed:
        raise zipfile.BadZipFile(
            f"{record.filename[:80]} has {record.file_size} of the {needed} bytes that its tensors "
            "take"
        )


def _no_archive(name: str, path: Path, error: Exception) -> ModelError:
    with open_regular(path) as file:
        started = file.read(1)
    if started == b"\x80":
        return ModelError(
            f"{name} is a checkpoint as PyTorch wrote them before version 1.6",
            remedy="load it with a current PyTorch and save it again with torch.save",
        )
    return ModelError(f"{name} is not a complete PyTorch checkpoint: {error}", remedy=DAMAGED)
