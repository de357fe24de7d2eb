"""Language models: reading their files, tokenizers, adapters, and generating text from them."""
