"""Stable Diffusion in MLX: networks, samplers, loading, pictures."""
