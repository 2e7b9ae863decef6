"""Data that several rooms pass around."""
