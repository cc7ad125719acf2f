"""Resources: databases and caches that a stack needs, bound or run."""
