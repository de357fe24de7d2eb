"""What runs jobs: the RQ worker, the engine that owns the GPU, and one module per job kind.

The worker process never imports MLX; the engine process never touches Redis or the ledger.
"""
