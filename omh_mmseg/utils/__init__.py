"""What all rooms use and no room owns."""
