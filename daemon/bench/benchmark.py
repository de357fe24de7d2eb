"""One run of ``studioq bench``: queue, wait, read, measure what is beside the queue, record.

The rule this module protects: what runs outside the queue (a read of memory, llama.cpp, PyTorch)
begins after the benchmark's own jobs have ended, and is said, with the jobs that run meanwhile.
A table that fails leaves the others theirs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from daemon.bench import bandwidth, llama, measures, rival
from daemon.bench.choice import check_models
from daemon.bench.jobs import Jobs
from daemon.bench.plan import Plan, diffusion_request, write_rows
from daemon.bench.record import Figure, Machine, Record, Result
from daemon.cli.watch import View
from daemon.errors import JobError, StudioqError

if TYPE_CHECKING:
    from daemon.client import Client

Say = Callable[[str], None]

_READ, _READ_QUICK = 1 << 30, 1 << 28
_VERSION = "version_"

# Facts of a job that say what was measured; the rest of them is the machine's.
_TOLD = ("model_fingerprint", "model_bytes", "decode_weight_bytes", "width", "height")


class Benchmark:
    """Measures a plan through a client. ``say``: is told in a line what takes long.

    ``python``: the interpreter whose PyTorch is measured, None for none.
    """

    def __init__(
        self, client: Client, plan: Plan, *, view: View, say: Say, quick: bool, python: str | None
    ) -> None:
        self._client = client
        self._plan = plan
        self._jobs = Jobs(client, view)
        self._say = say
        self._quick = quick
        self._python = python
        self._facts: dict[str, Any] = {}
        self._data: Any = None

    def run(self) -> Record:
        """Measure everything; cancel what of this benchmark's is left in the queue at the end.

        Raises:
            SpecRefusedError: a model or option cannot be; nothing was measured.
        """
        try:
            results = self._queued()
            machine = self._machine()
            results = [self._beside(result) for result in results]
        finally:
            for line in self._jobs.close().lines():
                self._say(line)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return Record(date=date, machine=machine, results=tuple(results), quick=self._quick)

    def _queued(self) -> list[Result]:
        """Queue every table's unmeasured job at once, so that what is refused is so before long.

        A model of the wrong kind is refused before that.
        """
        check_models(self._plan, self._client.models()["models"])
        if "train" in self._plan.tables:
            self._data = self._rows()
        first = {
            table: self._jobs.submit(self._plan.warm_up(table, self._data))
            for table in self._plan.tables
        }
        return [self._table(table, first[table]) for table in self._plan.tables]

    def _rows(self) -> Any:
        with TemporaryDirectory(prefix="studioq-bench-") as folder:
            return self._client.training_data(write_rows(Path(folder)))

    def _table(self, table: str, first: int) -> Result:
        makers = {"train": self._train, "infer": self._infer, "diffuse": self._diffuse}
        result = Result(
            table=table,
            model=self._plan.model_of(table),
            settings=self._plan.settings(table),
        )
        try:
            self._jobs.wait([first])
            return makers[table](result)
        except JobError as error:
            return replace(result, failures=(self._complaint(error),))

    def _complaint(self, error: StudioqError) -> str:
        self._say(error.message)
        return error.message if not error.remedy else f"{error.message}; {error.remedy}"

    def _train(self, result: Result) -> Result:
        jobs = self._jobs.run(self._plan.measured("train", self._data))
        metrics = [self._client.metrics(job["id"]) for job in jobs]
        return self._with(result, measures.training_figures(jobs, metrics), jobs)

    def _infer(self, result: Result) -> Result:
        jobs = self._jobs.run(self._plan.measured("infer", None))
        result = self._with(result, measures.inference_figures(jobs), jobs)
        made = int(jobs[-1]["metrics"]["generation_tokens"])
        if made == self._plan.size.tokens:
            return result
        return _noted(result, f"the model ended its answer after {made} tokens")

    def _diffuse(self, result: Result) -> Result:
        """Measure batch after batch, until memory holds no larger one."""
        for index, batch in enumerate(self._plan.size.batches):
            try:
                jobs = self._batch(batch, warm=index > 0)
            except JobError as error:
                if index and error.code == "out_of_memory":
                    return _noted(result, f"batch {batch} does not fit into memory")
                return replace(result, failures=(self._complaint(error),))
            made = measures.facts_of(jobs).get("batch_size", batch)
            if made < batch:
                return _noted(result, f"no more than {made} at once fit into memory")
            figures = measures.diffusion_figures(jobs, batch, self._plan.size.steps)
            result = self._with(result, figures, jobs)
        return result

    def _batch(self, batch: int, *, warm: bool) -> list[Any]:
        group = self._plan.measured("diffuse", None, batch)
        if warm:
            self._jobs.run([self._plan.warm_up("diffuse", None, batch)])
        return self._jobs.run(group)

    def _with(self, result: Result, figures: Sequence[Figure], jobs: Sequence[Any]) -> Result:
        """Add figures to a result, with what their jobs recorded."""
        facts = measures.facts_of(jobs)
        self._facts = {**self._facts, **facts}
        return replace(
            result,
            figures=(*result.figures, *figures),
            facts={name: facts[name] for name in _TOLD if name in facts},
            notes=(*result.notes, *measures.interruptions(jobs)),
        )

    def _machine(self) -> Machine:
        facts = self._facts
        device, kind = str(facts.get("device") or ""), str(facts.get("device_kind") or "")
        rate, source = self._bandwidth(device, kind)
        return Machine(
            device=device,
            kind=kind,
            platform=str(facts.get("platform") or platform.platform()),
            processors=os.cpu_count() or 0,
            bandwidth=rate,
            bandwidth_source=source,
            versions=_versions(facts),
        )

    def _bandwidth(self, device: str, kind: str) -> tuple[float | None, str]:
        """Return bytes per second and whence: published for the chip, or measured on a CPU."""
        if "infer" not in self._plan.tables:
            return None, "not asked for"
        rate = bandwidth.published(device)
        if kind in {"metal", "cuda"} and rate is not None:
            return rate, "published"
        if kind != "cpu":
            return None, "unknown"
        self._tell_outside("reading memory")
        size = bandwidth.room_for_measuring(_READ_QUICK if self._quick else _READ)
        return bandwidth.measured(size), "measured"

    def _tell_outside(self, what: str) -> None:
        """Say what happens outside the queue, and who else is at work."""
        others = self._jobs.others_running()
        beside = f"; job {' '.join(map(str, others))} runs meanwhile" if others else ""
        self._say(f"{what}, outside the queue{beside}")

    def _beside(self, result: Result) -> Result:
        """Add the other programs' figures to a table that has its own."""
        if not result.figures or result.table == "train":
            return result
        found = next(
            (model for model in self._client.models()["models"] if model["name"] == result.model),
            None,
        )
        return self._llama(result, found) if result.table == "infer" else self._torch(result, found)

    def _llama(self, result: Result, model: Any) -> Result:
        file = llama.find_file(model)
        if file is None or llama.find_program() is None:
            return result
        self._tell_outside(f"running {llama.PROGRAM}")
        try:
            run = llama.run(file, tokens=self._plan.size.tokens, repeats=self._plan.repeats)
        except StudioqError as error:
            return _noted(result, self._complaint(error))
        said = f"llama.cpp {run.build}, {run.backends}: the file's own types, its own threads"
        return _noted(replace(result, figures=(*result.figures, run.figure)), said)

    def _torch(self, result: Result, model: Any) -> Result:
        if self._python is None:
            return result
        if model is None or model["format"] != "diffusers":
            return _noted(result, "PyTorch was not measured: the model is no diffusers folder")
        request = {
            **diffusion_request(),
            "cfg": result.settings["cfg"],
            "steps": result.settings["steps"],
            "repeats": self._plan.repeats,
        }
        self._tell_outside("running PyTorch's diffusers")
        other = rival.run(
            Path(model["path"]), request=request, batches=result.batches(), python=self._python
        )
        result = replace(result, figures=(*result.figures, *other.figures))
        said = [] if other.facts is None else [_torch_line(other.facts)]
        return _noted(result, *said, *other.notes)


def _noted(result: Result, *notes: str) -> Result:
    return replace(result, notes=(*result.notes, *notes))


def _torch_line(facts: Mapping[str, Any]) -> str:
    versions = " ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"PyTorch: {versions}, {facts['dtype']} on {facts['device']}; the same model and work"


def _versions(facts: Mapping[str, Any]) -> dict[str, str]:
    found = {
        name.removeprefix(_VERSION): str(version)
        for name, version in sorted(facts.items())
        if name.startswith(_VERSION)
    }
    return found | ({"python": str(facts["python"])} if "python" in facts else {})
