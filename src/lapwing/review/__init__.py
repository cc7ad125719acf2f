"""Review: findings about a stack, with evidence and advice."""
