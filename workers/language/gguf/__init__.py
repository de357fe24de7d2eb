"""Language models in GGUF files, llama.cpp's format.

The rule this package protects: a file is read tensor by tensor, and whatever it does not say as it
must be said is refused before the first.

``file`` is what a file says of itself, ``architectures`` makes mlx-lm's configuration of that and
``positions`` its part about scaled positions, ``names`` and ``network`` give each tensor its place,
``blocks`` reads numbers, and ``source`` holds all of it together.
"""

from workers.language.gguf.source import open_gguf, split_halves

__all__ = ["open_gguf", "split_halves"]
