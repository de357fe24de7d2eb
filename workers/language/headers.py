"""What weights files declare about themselves, as the daemon reads it too.

The rule this module protects: a file that the daemon takes for whole is read by the engine with the
same code.
"""

from __future__ import annotations

from daemon.gguf_header import AFFINE_BITS, AFFINE_GROUP, loaded_bytes, read_gguf_header
from daemon.safetensors_header import TensorInfo, WeightsHeader, read_safetensors_header

__all__ = [
    "AFFINE_BITS",
    "AFFINE_GROUP",
    "TensorInfo",
    "WeightsHeader",
    "loaded_bytes",
    "read_gguf_header",
    "read_safetensors_header",
]
