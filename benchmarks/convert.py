"""Conversions beside ``cp``: bytes per second, and the memory they take.

    python benchmarks/convert.py MODEL                     as it is stored
    python benchmarks/convert.py MODEL --quantize 4        with an option of studioq convert
    python benchmarks/convert.py --make PLACE --layers 12  random weights to try it on

Definitions
    cp: ``cp -r`` of the model's folder or file to the same disk, and a sync of what it wrote; the
        files were read once before, so both find them in the system's memory as far as it goes.
    rate: the bytes of the weights that were read, divided by the time from the first layer to the
        synced last file. A conversion writes through to the disk, and so does cp here.
    memory: the most that a fresh process ever held of its own and of mapped files (VmHWM) above
        what it held after importing what an idle engine has imported; Linux only.
    limit: 1.2 times the largest weights file, and 500 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.startup import with_engine_environment

_MB = 1e6


def main() -> int:
    """Measure and print; 1 if the memory passed its limit."""
    options = arguments().parse_args()
    with_engine_environment()
    if options.make is not None:
        make_model(options.make, options.layers)
        return 0
    if options.child is not None:
        print(json.dumps(convert_once(options.model, options.child, _spec(options))))
        return 0
    return compare(options)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, nargs="?", help="a model's folder or file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quantize", help="as of studioq convert")
    parser.add_argument("--dtype", help="as of studioq convert")
    parser.add_argument("--dequantize", action="store_true", help="as of studioq convert")
    parser.add_argument("--make", type=Path, metavar="PLACE", help="write a random model, and end")
    parser.add_argument("--layers", type=int, default=12, help="of the random model, 92 MB each")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser


def _spec(options: argparse.Namespace) -> dict[str, Any]:
    wanted = {"quantize": options.quantize, "dtype": options.dtype}
    return {key: value for key, value in wanted.items() if value} | (
        {"dequantize": True} if options.dequantize else {}
    )


def compare(options: argparse.Namespace) -> int:
    """Convert and copy in turn, and print the medians."""
    seconds, copies, children = [], [], []
    with tempfile.TemporaryDirectory(dir=options.model.resolve().parent) as place:
        read_once(options.model)
        for number in range(options.rounds):
            folder = Path(place) / str(number)
            copies.append(copy_seconds(options.model, folder / "copy"))
            children.append(in_child(folder))
            seconds.append(children[-1]["seconds"])
            shutil.rmtree(folder)
    read, written = children[0]["bytes_read"], children[0]["bytes_written"]
    copied = statistics.median(copies)
    spent = statistics.median(seconds)
    extra = max(child["memory"] for child in children)
    print(f"read {read / _MB:.0f} MB, wrote {written / _MB:.0f} MB, median of {options.rounds}")
    print(f"convert {spent:.2f} s, {read / spent / _MB:.0f} MB/s ({_span(seconds)})")
    print(f"cp      {copied:.2f} s, {read / copied / _MB:.0f} MB/s ({_span(copies)})")
    limit = 1.2 * largest_file(options.model) + 500 * _MB
    print(f"memory {extra / _MB:.0f} MB above idle; the limit is {limit / _MB:.0f} MB")
    return int(extra > limit)


def _span(seconds: list[float]) -> str:
    return f"{min(seconds):.2f} to {max(seconds):.2f} s"


def files_of(model: Path) -> list[Path]:
    """Return the files of a model."""
    return [model] if model.is_file() else [path for path in model.iterdir() if path.is_file()]


def read_once(model: Path) -> None:
    """Read every file, so that neither contender has to fetch it from the disk."""
    for path in files_of(model):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def largest_file(model: Path) -> int:
    """Return the bytes of the largest file."""
    return max(path.stat().st_size for path in files_of(model))


def copy_seconds(model: Path, target: Path) -> float:
    """Return how long ``cp -r`` and the sync of what it wrote take."""
    target.parent.mkdir()
    started = time.perf_counter()
    subprocess.run(["cp", "-r", str(model), str(target)], check=True)
    for path in files_of(target):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return time.perf_counter() - started


def in_child(folder: Path) -> dict[str, Any]:
    """Convert in a fresh process with this program's own arguments."""
    command = [sys.executable, *sys.argv, "--child", str(folder / "converted")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def convert_once(model: Path, place: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Run the job kind in this process; return its numbers and its memory in bytes."""
    from daemon.specs import ConvertSpec
    from workers import convert
    from workers.events import Metric
    from workers.kinds import Context
    from workers.models import ModelCache

    (place / "attempt").mkdir(parents=True)
    context = Context(
        job=1,
        attempt=1,
        spec=ConvertSpec(**{"model": "measured", "to": "new", "seed": 0, **options}),
        folder=place / "attempt",
        models=ModelCache(0, time.monotonic),
        model=model,
        target=place / "models" / "me" / "new",
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    idle = memory_peak()
    metrics = [event for event in convert.run(context) if isinstance(event, Metric)]
    return {**metrics[-1].values, "memory": memory_peak() - idle}


def memory_peak() -> int:
    """Return the most bytes that this process has held (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def make_model(place: Path, layers: int) -> None:
    """Write a llama with random bfloat16 weights in two files, and a tokenizer of bytes."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama

    config = {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "rms_norm_eps": 1e-5,
        "vocab_size": 32_000,
        "tie_word_embeddings": False,
    }
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(config))
    shapes = tree_flatten(llama.Model(llama.ModelArgs.from_dict(config)).parameters())
    half = len(shapes) // 2
    for number, part in enumerate((shapes[:half], shapes[half:]), start=1):
        arrays = {
            name: mx.random.normal(array.shape, dtype=mx.bfloat16, scale=0.02)
            for name, array in part
        }
        mx.save_safetensors(str(place / f"model-{number:05}-of-00002.safetensors"), arrays)
    write_tokenizer(place / "tokenizer.json")


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer whose tokens are bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({text: at for at, text in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(path))


if __name__ == "__main__":
    sys.exit(main())
