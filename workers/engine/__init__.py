"""The engine: the one process that imports MLX and holds the GPU, and the worker's handle on it."""
