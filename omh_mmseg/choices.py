"""What options may be: named here, where nothing heavy is imported, for the commands and for what they reach."""

from __future__ import annotations

SPLITS = ('train', 'val', 'test')
SEARCHES = ('matmul', 'faiss')
"""Ways to the nearest neighbours."""
FEATURE_DTYPES = ('bfloat16', 'float16', 'float32')
"""Of the feature cache."""
MATCHINGS = ('hungarian', 'majority', 'identity')
"""Of clusters to classes."""
UNIFORM, USAGE = 'uniform', 'usage'
MARGINALS = (USAGE, UNIFORM)
"""Of the plans whose trees are analysed; the first is the default."""
UNKNOWN_RULES = ('error', 'ignore')
"""What colours are that are no class."""
REFIT_POSITIONS = 40
"""Codes of each training image: the least that worked (docs/methods/evaluation.md 6.7)."""
MAX_PIXELS = 178_956_970
"""Of an image: where Pillow's own guard against decompression bombs stops."""
