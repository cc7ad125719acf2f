"""Runtime: the agent and what it drives on one machine."""
