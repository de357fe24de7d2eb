"""The three tables as people read them, the tutorial's numbers beside them and called so.

The rule this module protects: a cell without a number says why it has none: ``-`` was not measured
or is not known, ``failed`` failed. Nothing of the tutorial stands unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterator

from daemon.bench import tutorial
from daemon.bench.ceiling import Ceiling
from daemon.bench.layout import Row, fold, table
from daemon.bench.llama import KEY as LLAMA
from daemon.bench.record import Figure, Machine, Record, Result
from daemon.cli.table import Column
from daemon.cli.units import size

NOTHING, FAILED, FLAG = "-", "failed", " !"
THIS = "this machine"

_TITLES = {
    "train": "LoRA training: batch 4, rank 8, q and v of the last 16 layers",
    "infer": "Decoding, one prompt at a time",
    "diffuse": "Pictures by batch size",
}


def page(record: Record, width: int | None) -> Iterator[str]:
    """Yield the lines of all tables of a record, for a terminal of ``width`` (None: a pipe)."""
    yield from fold(_machine_line(record.machine), width)
    makers = {"train": _training, "infer": _decoding, "diffuse": _diffusion}
    for result in record.results:
        yield ""
        yield from fold(f"{_TITLES[result.table]}: {result.model}{_of(result)}", width)
        yield from makers[result.table](record, result, width)
        for line in (*(f"! {failure}" for failure in result.failures), *result.notes):
            yield from fold(line, width)


def number(figure: Figure | float | None) -> str:
    """Write a median or number with four digits."""
    value = figure.median if isinstance(figure, Figure) else figure
    return NOTHING if value is None else f"{value:.4g}"


def _machine_line(machine: Machine) -> str:
    versions = " ".join(f"{name} {version}" for name, version in sorted(machine.versions.items()))
    where = f"{machine.device or 'unknown device'} ({machine.kind or 'kind unknown'}"
    bandwidth = "memory's bandwidth unknown"
    if machine.bandwidth is not None:
        bandwidth = f"memory {machine.bandwidth / 1e9:.4g} GB/s {machine.bandwidth_source}"
    return f"{where}, {machine.processors} processors), {bandwidth}; {versions}".rstrip("; ")


def _of(result: Result) -> str:
    """Return what else is to be known of a table's jobs."""
    first = next(iter(result.figures), None)
    repeats = "" if first is None else _repeats(len(first.values))
    named = [name for name in ("iters", "max_tokens", "steps") if name in result.settings]
    counts = "".join(f", {result.settings[name]} {_WORDS[name]}" for name in named)
    return f"{counts}{repeats}"


def _repeats(count: int) -> str:
    return "; one run" if count == 1 else f"; median of {count}, ± the farthest"


_WORDS = {"iters": "iterations", "max_tokens": "tokens", "steps": "steps with guidance"}


def _spread(figure: Figure | None) -> str:
    return NOTHING if figure is None or len(figure.values) < 2 else f"{figure.spread:.1%}"


def _own(result: Result, name: str) -> str:
    """Return this machine's number; a failed table has the word instead."""
    figure = result.figure(name)
    return FAILED if figure is None and result.failures else number(figure)


def _training(_: Record, result: Result, width: int | None) -> Iterator[str]:
    columns = (
        Column(title="machine"),
        Column(title="model", least=8),
        Column(title="it/s", right=True),
        Column(title="tok/s", right=True),
        Column(title="±", right=True),
        Column(title="peak memory", right=True),
    )
    rows: list[Row] = [
        (
            THIS,
            result.model,
            _own(result, "it_per_sec"),
            _own(result, "tokens_per_sec"),
            _spread(result.figure("tokens_per_sec")),
            _peak(result),
        )
    ]
    for machine, theirs in _tutorials("train"):
        rates = [number(theirs.figure(name)) for name in ("it_per_sec", "tokens_per_sec")]
        rows.append((f"{machine.device} *", theirs.model, *rates, NOTHING, NOTHING))
    yield from table(columns, rows, width)
    yield from fold(f"* {tutorial.SAYS}; the text says about 475, and 250 to 290", width)


def _peak(result: Result, at: str = "") -> str:
    return size(result.median(f"peak_memory{at}")) or NOTHING


def _tutorials(table: str) -> Iterator[tuple[Machine, Result]]:
    for record in tutorial.MACHINES:
        found = record.result(table)
        if found is not None:
            yield record.machine, found


def ceiling_of(machine: Machine, result: Result) -> Ceiling | None:
    """Return the ceiling beside a decoding result's rate; None where no rate was measured."""
    rate = result.median("tokens_per_sec")
    if rate is None:
        return None
    count = result.facts.get("decode_weight_bytes")
    return Ceiling(rate=rate, bytes_per_token=count, bandwidth=machine.bandwidth)


def _decoding(record: Record, result: Result, width: int | None) -> Iterator[str]:
    llama = result.figure(LLAMA)
    columns = [
        Column(title="machine"),
        Column(title="model", least=8),
        *(
            Column(title=title, right=True)
            for title in ("tok/s", "±", "GB a\ntoken", "GB/s", "ceiling\ntok/s", "of it")
        ),
        *([Column(title="llama.cpp\ntok/s", right=True)] if llama else []),
    ]
    pairs = [(THIS, record.machine, result)]
    pairs += [(f"{machine.device} *", machine, theirs) for machine, theirs in _tutorials("infer")]
    rows = [_decoding_row(name, machine, each) for name, machine, each in pairs]
    others = [number(each.figure(LLAMA)) for _, _, each in pairs]
    shown = [[*row, other] if llama else row for row, other in zip(rows, others, strict=True)]
    yield from table(columns, shown, width)
    yield from fold(_CEILING, width)
    yield from fold(f"* {tutorial.SAYS}", width)
    for name, machine, each in pairs:
        ceiling = ceiling_of(machine, each)
        whose = name if name == THIS else f"the tutorial's {machine.device}"
        if ceiling is not None and (said := ceiling.complaint(whose)):
            yield from fold(f"! {said}", width)


_CEILING = (
    "ceiling: GB/s by the GB of weights that a token reads, as they lie in memory; keys and values "
    "of earlier tokens are not counted"
)


def _decoding_row(name: str, machine: Machine, result: Result) -> list[str]:
    ceiling = ceiling_of(machine, result)
    count = result.facts.get("decode_weight_bytes")
    flag = FLAG if ceiling and ceiling.is_exceeded else ""
    share = NOTHING if ceiling is None or ceiling.share is None else f"{ceiling.share:.0%}"
    return [
        name,
        result.model,
        _own(result, "tokens_per_sec") + flag,
        _spread(result.figure("tokens_per_sec")),
        number(count / 1e9 if count else None),
        number(machine.bandwidth / 1e9 if machine.bandwidth else None),
        number(ceiling.tokens_per_second if ceiling else None),
        share,
    ]


def _diffusion(_: Record, result: Result, width: int | None) -> Iterator[str]:
    rival = any(figure.key.startswith("torch.") for figure in result.figures)
    others = _TORCH if rival else _PUBLISHED
    titles = ("batch", "s/picture", "±", "step-\npictures/s", "peak\nmemory", *others)
    batches = result.batches()
    rows = [_diffusion_row(result, batch, rival=rival) for batch in batches]
    if not batches and result.failures:
        rows = [[NOTHING, FAILED, NOTHING, FAILED, NOTHING, *(NOTHING for _ in others)]]
    yield from table([Column(title=title, right=True) for title in titles], rows, width)
    if not rival:
        said = (
            f"* {tutorial.SAYS}: Stable Diffusion 2.1, 512x512, float32, 50 steps, M2 Ultra, "
            "step-pictures/s"
        )
        yield from fold(said, width)


_TORCH = ("PyTorch\ns/picture", "PyTorch\nstep-\npictures/s", "studioq is")
_PUBLISHED = ("tutorial's\nMLX *", "tutorial's\nPyTorch *")


def _diffusion_row(result: Result, batch: int, *, rival: bool) -> list[str]:
    own, step = f"seconds_per_picture@{batch}", f"step_pictures_per_sec@{batch}"
    row = [
        str(batch),
        number(result.figure(own)),
        _spread(result.figure(own)),
        number(result.figure(step)),
        _peak(result, f"@{batch}"),
    ]
    if not rival:
        theirs = tutorial.published_pictures()
        return [*row, *(number(theirs.figure(f"{who}.{step}")) for who in ("diffuse", "torch"))]
    torch = [result.figure(f"torch.{name}") for name in (own, step)]
    return [*row, *(number(figure) for figure in torch), _times(torch[0], result.figure(own))]


def _times(theirs: Figure | None, own: Figure | None) -> str:
    """Return how many times as fast the own seconds are."""
    if theirs is None or own is None:
        return NOTHING
    return f"{theirs.median / own.median:.2f} times"
