"""Stage 9, stored vectors: names and vectors (S, D) in a folder, asked for the nearest ones.

`vectors` keeps them, in SQLite (`database`); `exact` compares with all; `approximate` with a part,
by FAISS, where there are very many, and `late` with those that came after it.
"""

from pixcloud.store.vectors import About, Found, VectorStore

__all__ = ["About", "Found", "VectorStore"]
