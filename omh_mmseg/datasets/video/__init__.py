"""Sequences of frames: data sets, pairs of frames, and the flow between them."""
