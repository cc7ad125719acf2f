"""What is too much, at risk or too large in a stack, from its file. Pure."""
