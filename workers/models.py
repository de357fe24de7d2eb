"""The models that stay loaded between jobs, within a memory budget.

The rule this module protects: what is kept is never modified. Each attempt borrows a module tree of
its own over the same weights (MLX arrays are values, so sharing them costs no memory), puts its
adapter into that tree, and drops the tree when it ends. Nothing has to be removed, and two attempts
interleaved in one engine cannot disturb each other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import mlx.core as mx
from mlx import nn

from daemon.errors import OutOfMemoryError
from workers.language import formats
from workers.language.load import LanguageModel, load_language_model
from workers.memory import free_unused, on_gpu
from workers.own_memory import MemoryBook


class Loaded(Protocol):
    """A loaded model; ``bytes`` are its weights' size."""

    @property
    def bytes(self) -> int:
        """Bytes of its weights."""
        ...


M = TypeVar("M", bound=Loaded)


@dataclass(frozen=True, kw_only=True)
class Loader(Generic[M]):
    """How models of one kind are loaded and kept.

    ``estimate`` tells the bytes that the weights will take, from the files' headers. ``own`` gives
    a model whose module trees the borrower may change, over the same arrays.
    """

    load: Callable[[Path], M]
    estimate: Callable[[Path], int]
    own: Callable[[M], M]


@dataclass(slots=True)
class _Entry:
    """A loaded model: what its files were then, when it was last used, how many use it now."""

    model: Any
    loader: Loader[Any]
    stamp: tuple[tuple[str, int, int], ...]
    used_at: float
    load_seconds: float
    borrowers: int = 0


class ModelCache:
    """Loaded models by path; the least recently used go first when the budget is passed.

    ``budget_bytes`` bounds the models kept; one that is larger alone is loaded all the same.
    ``limit_bytes`` is what the device has: a model beyond it is refused before it is loaded.
    ``memory`` counts what attempts hold beside the models that nobody uses.
    """

    def __init__(
        self, budget_bytes: int, clock: Callable[[], float], *, limit_bytes: int | None = None
    ) -> None:
        self._budget = budget_bytes
        self._limit = limit_bytes
        self._clock = clock
        self._entries: dict[Path, _Entry] = {}
        self.memory = MemoryBook(self._idle_bytes)

    def paths(self) -> list[Path]:
        """Return the resolved path of each loaded model, least recently used first."""
        entries = sorted(self._entries.items(), key=lambda item: item[1].used_at)
        return [path for path, _ in entries]

    def is_loaded(self, path: Path) -> bool:
        """Say whether the model is there as its files now are."""
        return self._current(path.resolve()) is not None

    def language(self, path: Path) -> LanguageModel:
        """Return the kept model of ``path``, loading it first if need be. Not to be modified."""
        model: LanguageModel = self._entry(path, LANGUAGE).model
        return model

    def load_seconds(self, path: Path, loader: Loader[Any] | None = None) -> float:
        """Load ``path`` if it is not loaded; return how long that took now, 0 when it was warm.

        Without a ``loader`` it is a language model.
        """
        warm = self.is_loaded(path)
        entry = self._entry(path, loader or LANGUAGE)
        return 0.0 if warm else entry.load_seconds

    @contextmanager
    def borrow(self, path: Path) -> Iterator[LanguageModel]:
        """Give a language model with a module tree of its own, to be modified at will."""
        with self.borrow_with(LANGUAGE, path) as model:
            yield model

    @contextmanager
    def borrow_with(self, loader: Loader[M], path: Path) -> Iterator[M]:
        """Give a model of the loader's kind with module trees of its own; keep it loaded."""
        entry = self._entry(path, loader)
        self._lend(entry, 1)
        try:
            yield loader.own(entry.model)
        finally:
            self._lend(entry, -1)
            entry.used_at = self._clock()

    def free_bytes(self) -> int | None:
        """Return what the device allows beyond the models that are kept, None without a limit."""
        return None if self._limit is None else max(0, self._limit - self._held())

    def clear(self) -> int:
        """Drop every model that is not in use; return the bytes that MLX still holds."""
        for path in [path for path, entry in self._entries.items() if not entry.borrowers]:
            self._drop(path)
        return free_unused()

    def _lend(self, entry: _Entry, change: int) -> None:
        self.memory.settle()
        entry.borrowers += change

    def _drop(self, key: Path) -> None:
        self.memory.settle()
        del self._entries[key]

    def _entry(self, path: Path, loader: Loader[Any]) -> _Entry:
        key = path.resolve()
        entry = self._current(key)
        if entry is None or entry.loader is not loader:
            entry = self._load(key, loader)
        entry.used_at = self._clock()
        return entry

    def _current(self, key: Path) -> _Entry | None:
        """Return the loaded model if its files are still the same; forget it if they are not."""
        entry = self._entries.get(key)
        if entry is not None and entry.stamp != _stamp(key):
            self._drop(key)
            return None
        return entry

    def _load(self, key: Path, loader: Loader[Any]) -> _Entry:
        self._make_room(loader.estimate(key), key.name)
        stamp, started = _stamp(key), self._clock()
        model = loader.load(key)
        now = self._clock()
        entry = _Entry(
            model=model, loader=loader, stamp=stamp, used_at=now, load_seconds=now - started
        )
        self.memory.settle()
        self._entries[key] = entry
        return entry

    def _make_room(self, needed: int, name: str) -> None:
        """Drop idle models, least recently used first, until ``needed`` bytes fit the budget."""
        if self._limit is not None and needed > self._limit:
            raise OutOfMemoryError(
                f"model {name} needs {needed / 2**30:.1f} GiB for its weights alone; "
                f"this machine allows {self._limit / 2**30:.1f} GiB",
                remedy="use a smaller or quantised model",
            )
        idle = [(entry.used_at, key) for key, entry in self._entries.items() if not entry.borrowers]
        dropped = False
        for _, key in sorted(idle):
            if self._held() + needed <= self._budget:
                break
            self._drop(key)
            dropped = True
        if dropped:
            free_unused()

    def _held(self) -> int:
        return sum(entry.model.bytes for entry in self._entries.values())

    def _idle_bytes(self) -> int:
        idle = (entry for entry in self._entries.values() if not entry.borrowers)
        return sum(entry.model.bytes for entry in idle)


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and modification time of a model's files; empty when it has gone."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path, path.with_suffix(".json")]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _language_bytes(path: Path) -> int:
    return formats.estimate_bytes(formats.find_model_files(path), float32=not on_gpu())


def _own_language(model: LanguageModel) -> LanguageModel:
    return replace(model, model=own_tree(model.model))


LANGUAGE: Loader[LanguageModel] = Loader(
    load=load_language_model, estimate=_language_bytes, own=_own_language
)


def own_tree(model: nn.Module) -> nn.Module:
    """Return a copy of a module tree that shares the arrays' memory and nothing else.

    Modules, containers and array handles are new, so that assigning, freezing, converting layers
    and even in-place arithmetic leave the original alone. Other attributes (configurations, rotary
    embeddings' numbers, functions) are shared; networks do not change them.
    """
    return _copied(model, {})


def _copied(value: Any, done: dict[int, Any]) -> Any:
    """Copy modules, containers and array handles; ``done`` keeps tied modules tied."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, nn.Module):
        return _copied_module(value, done)
    if isinstance(value, mx.array):
        done[id(value)] = copy.copy(value)
        return done[id(value)]
    if type(value) is dict:
        return {key: _copied(item, done) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(_copied(item, done) for item in value)
    return value


def _copied_module(module: nn.Module, done: dict[int, Any]) -> nn.Module:
    """Copy one module without running its constructor, which would draw random weights."""
    new: nn.Module = dict.__new__(type(module))
    done[id(module)] = new
    for name, value in vars(module).items():
        object.__setattr__(new, name, _copied(value, done))
    for name, value in module.items():
        dict.__setitem__(new, name, _copied(value, done))
    return new
