"""The five crops of each image."""
