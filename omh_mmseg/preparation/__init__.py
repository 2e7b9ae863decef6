"""What is made once before training."""
