"""What finished runs learned, one topic per file."""
