"""Stack: what people write, and every error it can have."""
