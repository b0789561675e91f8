"""Finding similar pictures: an index of embeddings beside a folder of pictures (docs/search.md)."""
