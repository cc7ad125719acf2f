"""The supervisor of Envoy's processes: restarts each one that exits.

    respawn.py CONFIG:DESCRIPTOR... -- PROGRAM [OPTION...]

runs one process of the program for each configuration, whose standard output is the inherited
descriptor. It ends if one exits with an error before the first restart (invalid configuration, port
in use). It outlives the agent. SIGTERM ends it, and the agent then ends its children. It is started
as a file and without `site`, so it imports nothing but the standard library, and little of that:
9 MB of memory.
"""

from __future__ import annotations

import os
import signal
import sys
import time

STEADY_S = 1.0
"""Time between two starts of a process, at least."""


def main(arguments: list[str]) -> int:
    """Run until a process refuses to start; returns the exit status."""
    end = arguments.index("--")
    configs, command = arguments[:end], arguments[end + 1 :]
    for config in configs:
        os.set_inheritable(int(config.rpartition(":")[2]), False)
    running = {_start(command, config): (config, time.monotonic()) for config in configs}
    restarts = 0
    while True:
        pid, status = os.wait()
        config, began = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        ran = time.monotonic() - began
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        print(f"Envoy (process {pid}) {how} after {ran:.1f} s.", file=sys.stderr, flush=True)
        if code > 0 and restarts == 0:  # An invalid configuration, or a port in use.
            for other in running:
                os.kill(other, signal.SIGTERM)
            return code
        time.sleep(max(0.0, STEADY_S - ran))
        running[_start(command, config)] = (config, time.monotonic())
        restarts += 1


def _start(command: list[str], config: str) -> int:
    path, _, output = config.rpartition(":")
    actions = [(os.POSIX_SPAWN_DUP2, int(output), 1)]
    arguments = [*command, "--config-path", path]
    return os.posix_spawn(command[0], arguments, os.environ, file_actions=actions)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
