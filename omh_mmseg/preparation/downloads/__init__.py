"""From the files that a user downloads to the folders that the configs read."""
