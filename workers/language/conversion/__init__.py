"""Conversions: from any readable model to a folder that MLX and mlx-lm read.

The rule this package protects: no more than one layer's weights are in memory, and nothing that is
half written bears the name of a model.
"""
