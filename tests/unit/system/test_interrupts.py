"""Interrupts are delayed to the next wait, and have no effect after it."""

from __future__ import annotations

import os
import signal

import pytest

from lapwing.system import interrupts


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_interrupt_is_delayed_to_the_next_wait() -> None:
    steps = []
    with interrupts.deferred():
        interrupt()
        steps.append("changed")
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            steps.append("waited")
        interrupt()  # Also in a block that began earlier.
        with interrupts.deferred():
            steps.append("changed again")
            with pytest.raises(KeyboardInterrupt), interrupts.allowed():
                steps.append("waited")
        with interrupts.allowed():  # Each is raised once.
            steps.append("waited for the end")
    assert steps == ["changed", "changed again", "waited for the end"]


def test_interrupt_of_a_wait_is_raised_there() -> None:
    with interrupts.deferred():
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            interrupt()
        interrupt()
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_other_handlers_are_kept() -> None:
    received = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        with interrupts.deferred(), interrupts.allowed():
            interrupt()
    finally:
        signal.signal(signal.SIGINT, before)
    assert received == [signal.SIGINT]
