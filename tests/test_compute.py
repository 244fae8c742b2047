"""The one thread that computes."""

import threading
import time

import pytest

from engine.inference.local.compute import ComputeThread, compute_thread


def test_work_is_done_in_order_on_one_other_thread() -> None:
    thread, seen, names = ComputeThread(), [], set()

    def note(number: int) -> int:
        names.add(threading.current_thread())
        time.sleep(0.001)
        seen.append(number)
        return number

    for number in range(20):
        thread.post(lambda number=number: note(number) and None)
    assert thread.call(lambda: note(20)) == 20
    assert seen == list(range(21))
    assert len(names) == 1
    assert threading.main_thread() not in names


def test_work_may_ask_for_more_work() -> None:
    thread, steps = ComputeThread(), []

    def step() -> None:
        steps.append(len(steps))
        if len(steps) < 5:
            thread.post(step)

    thread.post(step)
    while len(steps) < 5:
        thread.call(lambda: None)
    assert steps == [0, 1, 2, 3, 4]


def test_an_exception_comes_back_to_who_called_and_the_thread_goes_on() -> None:
    thread = ComputeThread()

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        thread.call(fail)
    assert thread.call(lambda: 3) == 3


def test_a_process_has_one_that_does_not_keep_it_alive() -> None:
    assert compute_thread() is compute_thread()
    name = compute_thread().call(threading.current_thread)
    assert name.daemon
    assert name.name == "llama.cpp"
