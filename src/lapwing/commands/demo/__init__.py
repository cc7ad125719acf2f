"""The demo: the example under load, while it is deployed, broken and rolled back.

It plays on a stage of its own (a copy of the example in a git repository, a home, a port), so it
never touches what the user runs. What it claims is counted by the load client, outside of
everything that it judges.

    stage    makes the stage, and clears it away
    story    what is changed in the example, act by act, and what has to come of it
    play     plays the story under load
    result   what was counted and timed
"""
