"""Threads: fewer while they starve, all again after a pause, never less than one."""

from hypothesis import given
from hypothesis import strategies as st

from engine.inference.local.threads import Threads


def test_threads_that_have_their_cores_are_left_alone() -> None:
    threads = Threads(2)
    assert not any(threads.measure(number / 10, 0.1, 0.19) for number in range(50))
    assert threads.count == 2


def test_starved_threads_become_fewer_and_are_all_tried_again_after_a_pause() -> None:
    threads = Threads(2)
    assert threads.measure(10.0, 1.5, 0.05)
    assert threads.count == 1
    assert not threads.measure(11.0, 0.2, 0.2)
    assert not threads.measure(39.9, 0.2, 0.2), "twenty times what the starved batch took"
    assert threads.measure(40.1, 0.2, 0.2)
    assert threads.count == 2


def test_four_threads_give_up_one_after_the_other() -> None:
    threads = Threads(4)
    threads.measure(1.0, 0.2, 0.3)
    assert threads.count == 3
    threads.measure(1.2, 0.2, 0.3)
    assert threads.count == 2
    threads.measure(1.4, 0.2, 0.3)
    assert threads.count == 2, "these have three quarters of two cores"


def test_short_batches_are_measured_together() -> None:
    threads = Threads(2)
    changed = [threads.measure(number / 50, 0.02, 0.004) for number in range(6)]
    assert changed == [False] * 4 + [True, False]


@given(st.integers(1, 8), st.lists(st.tuples(st.floats(0, 3), st.floats(0, 10)), max_size=60))
def test_the_count_stays_within_its_bounds_and_changes_are_told(most: int, batches: list[tuple[float, float]]) -> None:
    threads, now = Threads(most), 0.0
    for elapsed, computed in batches:
        now += elapsed
        before = threads.count
        assert threads.measure(now, elapsed, computed) == (threads.count != before)
        assert 1 <= threads.count <= most
