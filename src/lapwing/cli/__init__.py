"""The command line: one file per verb."""

import gc

gc.set_threshold(50_000)
"""Python's 700 makes dozens of collections while modules load, which free nothing."""
