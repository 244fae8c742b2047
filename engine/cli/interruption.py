"""Being told to stop: Ctrl-C and SIGTERM alike end a command where it stands, with what is finished saved."""

import signal
from types import FrameType

INTERRUPTED = 130
TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the program was, so that whatever cleans up after Ctrl-C does so here too."""


def stop_on_sigterm() -> None:
    """Raise `Terminated` at the first SIGTERM, and be deaf to others while what is finished is saved.

    Where whoever started this process has it ignore SIGTERM, that is left alone.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _raise)


def exit_code(stopped: BaseException) -> int:
    """143 for SIGTERM, 130 for Ctrl-C; click puts its own exception around either."""
    return TERMINATED if isinstance(stopped.__cause__ or stopped, Terminated) else INTERRUPTED


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` and service managers may send it twice
    raise Terminated
