"""Acts: what a person can do to an environment. Each is one commit to the desired state.

The command line and the console share these; neither has another way in.
"""
