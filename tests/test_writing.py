"""Writing over streams without a model: texts against naive ones, every stream checked, beginnings computed once."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_inference import ImaginedStreams
from test_scheduler import STEMS, VOCABULARY, TinyVocabulary, prompts_strategy, written

from engine.inference.local.choices import LabelTree, Tokens
from engine.inference.local.context import LlamaContext
from engine.inference.local.jobs import GenerateJob, ScoreJob
from engine.inference.local.llama import LlamaModel
from engine.inference.local.writing import Writer
from engine.records import Completion, Generate, Plain


class Desk:
    """A writer over imagined streams."""

    def __init__(self, cells: int = 4096, padding: int = 1, parallel: int = 8) -> None:
        self.opened: list[ImaginedStreams] = []
        self._padding = padding
        self.writer = Writer(self._open, cells, padding, parallel)

    def _open(self, streams: int, length: int) -> LlamaContext:
        assert all(context.closed for context in self.opened), "one context at a time"
        self.opened.append(ImaginedStreams(streams, length, VOCABULARY, self._padding))
        return cast(LlamaContext, self.opened[-1])

    def job(self, key: str, prompt: Sequence[int], request: Generate) -> GenerateJob:
        return GenerateJob(key, np.array(prompt), request, cast(LlamaModel, TinyVocabulary()), seed=0)

    def run(self, jobs: Sequence[GenerateJob], most_steps: int = 20_000) -> dict[str, Completion]:
        assert all(self.writer.takes(job) for job in jobs)
        self.writer.add(jobs)
        done: dict[str, Completion] = {}
        for _ in range(most_steps):
            if not self.writer.busy:
                return done
            for completion in self.writer.step():
                assert completion.key not in done
                done[completion.key] = completion
        raise AssertionError("still busy")


def asking(tokens: int, *stop: str) -> Generate:
    return Generate(Plain(""), max_tokens=tokens, stop=stop)


request_strategy = st.builds(
    lambda tokens, stop: asking(tokens, *stop),
    st.integers(1, 12),
    st.lists(st.text("bcdefghijkl", min_size=1, max_size=2), max_size=2),
)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(prompts_strategy, request_strategy), min_size=1, max_size=24),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 12),
)
def test_texts_are_those_written_one_at_a_time(
    asked: list[tuple[Tokens, Generate]], padding: int, parallel: int, late: int
) -> None:
    desk = Desk(padding=padding, parallel=parallel)
    jobs = [desk.job(str(n), prompt, request) for n, (prompt, request) in enumerate(asked)]
    desk.writer.add(jobs[late:])
    done: dict[str, Completion] = {}
    if desk.writer.busy:
        done |= {completion.key: completion for completion in desk.writer.step()}
    done |= desk.run(jobs[:late])
    assert {key: completion.text for key, completion in done.items()} == {
        str(n): written(prompt, request) for n, (prompt, request) in enumerate(asked)
    }
    computed = sum(completion.computed_tokens for completion in done.values())
    assert computed <= desk.writer.decoded_rows, "padding comes on top"


def test_a_beginning_is_computed_once_and_kept_for_later_requests() -> None:
    desk = Desk()
    stem = STEMS[0][:30]
    first = desk.run([desk.job(str(n), (*stem, n, 7), asking(3)) for n in range(1, 9)])
    assert sum(completion.computed_tokens for completion in first.values()) <= 30 + 8 * (2 + 3)
    later = desk.run([desk.job(f"later {n}", (*stem, n, 8), asking(3)) for n in range(1, 9)])
    assert sum(completion.computed_tokens for completion in later.values()) <= 8 * (2 + 3)
    shorter = desk.run([desk.job("shorter", (*stem[:20], 11, 11), asking(3))])
    assert shorter["shorter"].computed_tokens <= 5, "a part of a kept beginning serves as well"
    assert shorter["shorter"].text == written((*stem[:20], 11, 11), asking(3))


def test_kept_beginnings_have_a_bound_and_those_unused_longest_go_first() -> None:
    desk = Desk(cells=1024)
    rng = np.random.default_rng(0)
    stems = [tuple(int(token) for token in rng.integers(1, VOCABULARY, 100)) for _ in range(6)]
    for number, stem in enumerate(stems):
        desk.run([desk.job(f"{number} {n}", (*stem, n), asking(1)) for n in (1, 2)])
    assert sum(beginning.length for beginning in desk.writer._beginnings) <= 1024 // 4
    last = desk.run([desk.job("last", (*stems[-1], 3), asking(1))])["last"]
    first = desk.run([desk.job("first", (*stems[0], 3), asking(1))])["first"]
    assert last.computed_tokens == 1
    assert first.computed_tokens == 101


def test_streams_are_opened_longer_for_a_longer_text_and_short_ones_need_not_wait_for_it() -> None:
    desk = Desk(cells=8192)
    long = desk.job("long", (1, 2) * 500, asking(4))
    short = [desk.job(f"short {n}", (3, 4, n), asking(4)) for n in range(1, 9)]
    desk.writer.add([long, *short])
    order = []
    while desk.writer.busy:
        order += [completion.key for completion in desk.writer.step()]
    assert order[-1] == "long"
    assert [context.cells for context in desk.opened] == [8 * 256, 8 * 1024]


def test_what_was_kept_is_forgotten_when_streams_are_opened_anew() -> None:
    desk = Desk(cells=4096)
    stem = STEMS[0][:30]
    desk.run([desk.job(str(n), (*stem, n), asking(2)) for n in (1, 2)])
    desk.run([desk.job("long", (1, 2) * 500, asking(2))])
    again = desk.run([desk.job("again", (*stem, 3), asking(2))])["again"]
    assert again.text == written((*stem, 3), asking(2))


def test_a_job_too_long_for_streams_or_of_many_sequences_is_not_taken() -> None:
    desk = Desk(cells=1024)
    assert desk.writer.takes(desk.job("fits", (1,) * 200, asking(56)))
    assert not desk.writer.takes(desk.job("long", (1,) * 200, asking(57)))
    tree = LabelTree.of([(1, 2, 3), (2, 3, 4)], 0)
    assert not desk.writer.takes(ScoreJob("many", np.array([1, 2]), tree))


def test_dropping_all_jobs_leaves_a_writer_that_goes_on() -> None:
    desk = Desk(parallel=3)
    desk.writer.add([desk.job(str(n), (*STEMS[0][:20], n), asking(9)) for n in range(1, 9)])
    for _ in range(6):
        desk.writer.step()
    desk.writer.clear()
    assert not desk.writer.busy
    again = desk.run([desk.job("again", (*STEMS[0][:20], 5), asking(9))])
    assert again["again"].text == written((*STEMS[0][:20], 5), asking(9))


def test_no_more_texts_than_allowed_run_at_a_time() -> None:
    desk = Desk(padding=4, parallel=1)
    desk.writer.add([desk.job(str(n), (*STEMS[0][:20], n), asking(9)) for n in range(1, 4)])
    while desk.writer.busy:
        desk.writer.step()
        assert len(desk.writer._texts) <= 1


@pytest.mark.parametrize("padding", [1, 2, 8])
def test_one_text_alone_is_filled_up_to_the_padding(padding: int) -> None:
    desk = Desk(padding=padding)
    assert desk.run([desk.job("one", (3,), asking(5))])["one"].text == written((3,), asking(5))
    assert desk.run([desk.job("two", (3, 4, 5), asking(5))])["two"].text == written((3, 4, 5), asking(5))
