"""Nearest neighbours of images, and pairs of them."""
