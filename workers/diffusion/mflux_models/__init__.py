"""FLUX, Z-Image and Qwen-Image models: what the optional package ``mflux`` can run, and how.

Nothing here imports mflux before a model of these kinds is loaded.
"""
