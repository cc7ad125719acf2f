"""The runtime of a machine: the agent, and the processes and proxy that it controls."""
