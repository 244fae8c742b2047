"""How many threads compute the next batch: all that were asked for, fewer while other processes keep the cores busy.

The threads of a batch wait for each other hundreds of times. Where one of them has no core, all wait for its turn, and
a batch takes many times as long as on one thread less; the processor time it took is then a small part of the time that
passed. That is measured here, and answered with a thread less, until some time later all are tried again. (8 texts side
by side on 2 cores, beside two busy processes: 54 tokens/s where all threads gave 7.)
"""

_WINDOW_S = 0.1  # measured together: a batch may take milliseconds
_STARVED = 0.55  # of the processor time that the threads could have had
_PAUSE_S = 2.0
_PAUSES = 20  # times what the starved window took


class Threads:
    """The number of threads, `count`, between one and `most`. Times are seconds."""

    def __init__(self, most: int) -> None:
        self.count = self._most = most
        self._elapsed = self._computed = 0.0
        self._again_at = 0.0

    def measure(self, now: float, elapsed: float, computed: float) -> bool:
        """Take in a batch that ended `now`: the time that passed and the processor time; whether `count` changed."""
        self._elapsed += elapsed
        self._computed += computed
        if self._elapsed < _WINDOW_S:
            return False
        elapsed, computed = self._elapsed, self._computed
        self._elapsed = self._computed = 0.0
        if self.count > 1 and computed < _STARVED * self.count * elapsed:
            self.count -= 1
            self._again_at = now + max(_PAUSE_S, _PAUSES * elapsed)
            return True
        if self.count < self._most and now >= self._again_at:
            self.count = self._most
            return True
        return False
