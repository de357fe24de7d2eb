"""Language models as Meta and Mistral release them: ``params.json`` and ``consolidated.*`` files.

``pickles`` reads the index of a PyTorch checkpoint and ``archive`` its tensors, ``shards`` the
weights files of a folder, ``params`` its configuration; ``names`` knows the tensors, ``release``
holds all of it together, and ``network`` puts it into mlx-lm's llama.
"""
