"""Resources: databases and caches, bound to a server or run by the agent."""
