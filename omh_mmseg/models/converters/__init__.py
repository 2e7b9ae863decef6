"""Weights of other implementations as checkpoints of ours."""
