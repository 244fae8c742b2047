"""The one thread of a process on which llama.cpp loads and computes, whatever the number of models.

OpenMP keeps a pool of threads for each thread that ever computed. Once the pools hold more threads than there are cores
their members no longer wait for work but sleep, and every step of a small batch has to wake them: with the model loaded
on one thread and run on another, a row took 30 ms instead of 6, and 12 rows 58 instead of 30 (libgomp, 2 cores).
"""

import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

Work = Callable[[], None]


class ComputeThread:
    """Work done in the order it comes in, on a thread that starts with the first and dies with the process."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def post(self, work: Work) -> None:
        """Have something done, some time. It must not raise."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="llama.cpp", daemon=True)
                self._thread.start()
        self._waiting.put(work)

    def call(self, work: Callable[[], T]) -> T:
        """Have something done, and its result or its exception. Not to be called from the thread itself."""
        future: Future[T] = Future()
        self.post(functools.partial(_settle, future, work))
        return future.result()

    def _serve(self) -> None:
        while True:
            self._waiting.get()()


@functools.cache
def compute_thread() -> ComputeThread:
    """The process's own."""
    return ComputeThread()


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
