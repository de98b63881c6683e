"""Planning of reference models."""
