"""What finished runs learned, and many runs."""
