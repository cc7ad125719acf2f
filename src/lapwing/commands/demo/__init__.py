"""The demo: the example is deployed, broken and rolled back under load.

It runs in a sandbox (a copy of the example in a git repository, its own home and port) and never
changes what the user runs. A separate load client counts the failed requests.

    sandbox    creates the sandbox and removes it
    scenario   what is changed in the example, step by step, and the expected outcome
    run        runs the scenario under load
    result     what was counted and measured
"""
