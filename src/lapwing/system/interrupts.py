"""Delays Ctrl-C while a command makes a change that must be completed or undone.

`deferred` delays an interrupt to the next `allowed` in its block: a wait during which the change
is complete or can be undone. The code around the wait handles KeyboardInterrupt. An interrupt
after the last wait has no effect, because the result is reported anyway.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that may raise KeyboardInterrupt; Windows has no SIGHUP."""
_received: ContextVar[list[int] | None] = ContextVar("_received", default=None)
"""The deferred signals; None outside of `deferred`, and in `allowed`."""


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delay interrupts to the next `allowed` in the block. It may be nested."""
    if _received.get() is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    token = _received.set([])
    try:
        with _handled():
            yield
    finally:
        _received.reset(token)


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """Raise KeyboardInterrupt for an interrupt in the block, or delayed by `deferred` before it."""
    received = _received.get()
    token = _received.set(None)
    try:
        if received:
            received.clear()
            raise KeyboardInterrupt
        yield
    finally:
        _received.reset(token)


def _receive(number: int, _frame: FrameType | None) -> None:
    received = _received.get()
    if received is None:
        raise KeyboardInterrupt
    received.append(number)


@contextlib.contextmanager
def _handled() -> Iterator[None]:
    numbers = [found for name in _NAMES if (found := getattr(signal, name, None))]
    handled = [n for n in numbers if signal.getsignal(n) is signal.default_int_handler]
    for number in handled:
        signal.signal(number, _receive)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.default_int_handler)
