"""Signal handling: one exception that unwinds the run, and an exit code that names the signal."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that end a run so that the same command resumes it; SLURM sends SIGUSR1 or SIGUSR2 before a time limit."""

RETRY = 0.05
"""Seconds after which a signal that arrived in a finalizer is sent again."""


class Interrupted(BaseException):
    """A signal's request to end. Not a KeyboardInterrupt, which Lightning turns into an exit of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """128 plus the signal, as in shells."""
        return 128 + self.signal.value


class SignalHandlers:
    """The current handlers of `SIGNALS`, to be restored after a library has set its own."""

    def __init__(self) -> None:
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def restore(self) -> None:
        """Restore them; outside the main thread, where Python sets no handlers, do nothing."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if handler is not None:  # None: not set from Python
                    signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the main thread on the first of `SIGNALS`; a second one ends the process at once."""
    handlers = SignalHandlers()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        handlers.restore()


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _is_postponed(number, frame):
        return
    signal.signal(number, signal.SIG_DFL)
    raise Interrupted(number)


def _is_postponed(number: int, frame: FrameType | None) -> bool:
    """Send a signal again later where it arrived in a finalizer: Python swallows what a finalizer raises."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            threading.Timer(RETRY, os.kill, (os.getpid(), number)).start()
            return True
        frame = frame.f_back
    return False


@contextmanager
def signals_as_keyboard_interrupt() -> Iterator[None]:
    """Raise `Interrupted` from calls that swallow all but KeyboardInterrupt in a signal handler, as Ray's do."""
    if signal.getsignal(signal.SIGTERM) is not _interrupt or threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        if _is_postponed(number, frame):
            return
        signal.signal(number, signal.SIG_DFL)
        received.append(number)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(received[0] if received else signal.SIGINT) from None
    finally:
        for number in set(SIGNALS) - set(received):
            signal.signal(number, _interrupt)
