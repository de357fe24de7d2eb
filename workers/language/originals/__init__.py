"""Language models as Meta and Mistral release them, and as MLX's examples of 2023 kept them.

``archive`` reads the tensors of a PyTorch checkpoint, and ``shards`` any of a model's files;
``params`` reads its sizes; ``names`` knows the tensors, ``release`` holds all of it together, and
``network`` makes mlx-lm's llama of it. What of this the daemon needs too is in ``daemon``: which
files they are (``release_files``) and the index of a checkpoint (``torch_pickle``).
"""
