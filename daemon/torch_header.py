"""What a PyTorch checkpoint declares about itself, read without PyTorch and without running it.

The rule this module protects: only the index is read, through an unpickler that knows tensors
alone (``daemon.torch_pickle``), and what is cut short is known from the directory of the archive.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path, PurePosixPath

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED, TensorInfo, WeightsHeader
from daemon.torch_pickle import TensorPlace, read_tensor_places

_INDEX = "data.pkl"
_WIDTHS = {"F16": 2, "BF16": 2, "F32": 4}
_MOST_INDEX = 64 * 2**20

_MALFORMED = (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, NotImplementedError)


def read_torch_header(path: Path, *, name: str | None = None) -> WeightsHeader:
    """Read the index of a checkpoint (``torch.save`` since 1.6) and check that all is there.

    The tensors' offsets are those of their records' headers, so two tensors over one storage have
    one offset. ``name`` is what messages call the file, if not by its own name.

    Raises:
        ModelError: it is no such archive, is truncated, or its index names what no tensor needs.
    """
    name = name or path.name
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = _tensors(name, archive)
    except _MALFORMED as error:
        raise _no_archive(name, path, error) from None
    return WeightsHeader(tensors=tensors, data_start=0)


def _tensors(name: str, archive: zipfile.ZipFile) -> tuple[TensorInfo, ...]:
    root = _root(archive)
    index = archive.getinfo(str(root / _INDEX))
    if index.file_size > _MOST_INDEX:
        raise zipfile.BadZipFile(f"its {_INDEX} has {index.file_size} bytes")
    places = read_tensor_places(name, archive.read(index))
    records = {record.filename: record for record in archive.infolist()}
    return tuple(
        _info(tensor, place, records.get(str(root / "data" / place.storage.key)))
        for tensor, place in places.items()
    )


def _root(archive: zipfile.ZipFile) -> PurePosixPath:
    """Return the folder in the archive that holds the index; torch names it after the file."""
    found = [PurePosixPath(name) for name in archive.namelist()]
    roots = [name.parent for name in found if name.name == _INDEX and len(name.parts) == 2]
    if len(roots) != 1:
        raise zipfile.BadZipFile(f"it has {len(roots)} {_INDEX}, and not one")
    return roots[0]


def _info(name: str, place: TensorPlace, record: zipfile.ZipInfo | None) -> TensorInfo:
    width = _WIDTHS[place.storage.dtype]
    if record is None:
        raise zipfile.BadZipFile(f"the numbers of {name} are not in it")
    if record.file_size < place.storage.elements * width:
        raise zipfile.BadZipFile(f"{record.filename} is shorter than {name} needs")
    return TensorInfo(
        name=name,
        dtype=place.storage.dtype,
        shape=place.shape,
        offset=record.header_offset + place.offset * width,
        bytes=math.prod(place.shape) * width,
    )


def _no_archive(name: str, path: Path, error: Exception) -> ModelError:
    with path.open("rb") as file:
        started = file.read(1)
    if started == b"\x80":
        return ModelError(
            f"{name} is a checkpoint as PyTorch wrote them before version 1.6",
            remedy="load it with a current PyTorch and save it again with torch.save",
        )
    return ModelError(f"{name} is not a complete PyTorch checkpoint: {error}", remedy=DAMAGED)
