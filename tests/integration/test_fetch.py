"""The download helper against a hub that runs here: the real client library, a small server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from daemon.model_kinds import check_model
from daemon.models import ModelRoots
from tests.unit.image_folders import CONFIGS, INDEX

COMMIT = "c" * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights" * 1000,
    "consolidated.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"pickle",
    "README.md": b"# readme",
    "model.Q4.gguf": b"GGUF",
}


def weights(count: int) -> bytes:
    """Return a safetensors file of one tensor with so many numbers."""
    return save({"weight": np.zeros(count, np.float32)})


# What an old and popular repository of an image model holds; of it these are needed.
NEEDED = {
    "model_index.json": json.dumps(INDEX).encode(),
    "scheduler/scheduler_config.json": b"{}",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"#version: 0.2",
    **{f"{part}/config.json": json.dumps(config).encode() for part, config in CONFIGS.items()},
    "text_encoder/model.fp16.safetensors": weights(5),
    "unet/diffusion_pytorch_model.fp16.safetensors": weights(3000),
    "vae/diffusion_pytorch_model.fp16.safetensors": weights(6),
}
PIPELINE = NEEDED | {
    "README.md": b"# readme",
    "v1-5-pruned.safetensors": b"everything in one file" * 1000,
    "v1-5-pruned.ckpt": b"pickle",
    "feature_extractor/preprocessor_config.json": b"{}",
    "image_encoder/model.safetensors": b"not needed",
    "safety_checker/config.json": b"{}",
    "safety_checker/model.safetensors": b"not needed",
    "safety_checker/model.fp16.safetensors": b"not needed",
    "text_encoder/model.safetensors": b"a text encoder",
    "text_encoder/pytorch_model.bin": b"pickle",
    "text_encoder/openvino_model.xml": b"<xml/>",
    "text_encoder/flax_model.msgpack": b"flax",
    "unet/diffusion_pytorch_model.safetensors": b"a unet" * 1000,
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"another unet" * 1000,
    "unet/model.onnx": b"onnx",
    "unet/deeper/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"a vae",
    "vae_decoder/model.onnx": b"onnx",
}
REPOSITORIES = {"org/name": FILES, "private/name": FILES, "org/pictures": PIPELINE}


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for one public and one private model."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    tokens: list[str | None]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        self.tokens.append(self.headers.get("Authorization"))
        private = "/private/" in path and self.headers.get("Authorization") is None
        if private:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)
        elif "/resolve/" in path:
            self._send_file(path, with_body=with_body)
        elif "/tree/" in path:
            self._send(200, json.dumps(self._tree(path)).encode(), {}, with_body=with_body)
        else:
            self._send(200, json.dumps(self._info(path)).encode(), {}, with_body=with_body)

    def _info(self, path: str) -> dict[str, Any]:
        name = self._name(path)
        siblings = [
            {"rfilename": file, "size": len(content)}
            for file, content in REPOSITORIES[name].items()
        ]
        return {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}

    def _tree(self, path: str) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": file, "size": len(content), "oid": sha256(content).hexdigest()}
            for file, content in REPOSITORIES[self._name(path)].items()
        ]

    def _name(self, path: str) -> str:
        return "/".join(path.removeprefix("/api/models").split("/")[1:3])

    def _send_file(self, path: str, *, with_body: bool) -> None:
        file = path.partition("/resolve/")[2].partition("/")[2]
        content = REPOSITORIES[self._name(path)][file]
        headers = {"ETag": f'"{sha256(content).hexdigest()[:40]}"', "X-Repo-Commit": COMMIT}
        self._send(200, content, headers, with_body=with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    Hub.asked, Hub.tokens = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(hub: ThreadingHTTPServer, root: Path, model: str, **request: Any) -> list[Any]:
    """Run the helper as the daemon does; return what it says."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_TOKEN": "hf_the_accounts_own",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from daemon.fetch import main; main()"],
        input=json.dumps({"model": model, "root": str(root)} | request) + "\n",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_model_comes_without_pickles_and_doubles(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    said = fetch(hub, tmp_path, "org/name")

    assert said[-1] == {"done": True}, said
    files = {path.name: path.read_bytes() for path in (tmp_path / "org" / "name").iterdir()}
    assert files == {name: FILES[name] for name in ("config.json", "model.safetensors")}
    assert [path.name for path in tmp_path.iterdir()] == ["org"]


def test_of_an_image_model_comes_what_is_needed_and_nothing_twice(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    said = fetch(hub, tmp_path, "org/pictures")

    assert said[-1] == {"done": True}, said
    folder = tmp_path / "org" / "pictures"
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert files == NEEDED
    total = sum(map(len, NEEDED.values()))
    assert said[-2] == {"bytes": total, "total": total}
    models = ModelRoots((tmp_path,))
    assert models.find("org/pictures") == folder
    check_model("diffuse", "org/pictures", folder, models)


def test_the_accounts_own_token_is_never_sent(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    (said,) = fetch(hub, tmp_path, "private/name")

    assert set(Hub.tokens) == {None}
    assert "private/name" in said["error"]["message"]
    assert "HF_TOKEN" in said["error"]["remedy"]
    assert list(tmp_path.iterdir()) == []


def test_the_submitters_token_is_sent(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    said = fetch(hub, tmp_path, "private/name", token="hf_the_submitters")

    assert said[-1] == {"done": True}, said
    assert set(Hub.tokens) == {"Bearer hf_the_submitters"}


def test_a_hub_that_is_away_is_said_so(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    hub.server_port = 9

    (said,) = fetch(hub, tmp_path, "org/name")

    assert "cannot be reached" in said["error"]["message"]
    assert "offline" in said["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_weights_is_no_model(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)

    (said,) = fetch(hub, tmp_path, "org/name")

    assert "holds no weights" in said["error"]["message"]


@pytest.mark.parametrize("model", ["org/name", "smollm2"])
def test_a_link_that_leaves_the_root_is_named(
    hub: ThreadingHTTPServer, tmp_path: Path, model: str
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("model.safetensors", "SmolLM2-135M-Instruct.Q4_1.gguf"):
        (elsewhere / name).touch()
    (root / model).parent.mkdir(parents=True)
    (root / model).symlink_to(elsewhere)

    (said,) = fetch(hub, root, model)

    assert f"{root / model} is a link that leaves the model root" in said["error"]["message"]
    assert "model_roots" in said["error"]["remedy"]
    assert Hub.asked == []
