"""The exit of a process: when it is reported, no thread of it is left."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time

from lapwing.agent import processes
from lapwing.agent.processes import Identity

OTHER_PROCESS = """
import ctypes, os, socket, sys, threading, time
if os.fork():
    os._exit(0)
os.setsid()
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    time.sleep(0.1)
    print(os.getpid(), listener.getsockname()[1], flush=True)
    os.close(1)
    time.sleep(600)
threading.Thread(target=serve).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""A process that is not a child, whose first thread is a zombie and whose second one listens."""


def test_kill_waits_for_the_last_thread() -> None:
    made = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS], stdout=subprocess.PIPE, check=True, timeout=60
    )
    pid, port = map(int, made.stdout.split())
    assert processes.started(pid) is None, "its first thread has exited"
    began = time.monotonic()
    asyncio.run(processes.wait_gone(pid, timeout=0.3))
    assert time.monotonic() - began >= 0.3, "its second thread has not"
    asyncio.run(processes.kill(Identity(pid, 0.0)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
