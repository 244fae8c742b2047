"""The scheduler without a model: label trees, trunks, jobs and batches against naive answers, every cell counted."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support_inference import ImaginedContext, imagined_logits

from engine.errors import ModelError
from engine.inference.backend import rounded
from engine.inference.local.cells import _GRAVE
from engine.inference.local.choices import LabelTree, Tokens
from engine.inference.local.context import LlamaContext
from engine.inference.local.jobs import (
    GenerateJob,
    Job,
    ScoreJob,
    Segment,
    WinnerJob,
    first_stop,
    log_normalizer,
    sample,
)
from engine.inference.local.llama import LlamaModel
from engine.inference.local.prefix import WORTHWHILE, Node, PrefixTree, shared_length
from engine.inference.local.scheduler import Scheduler
from engine.records import Completion, Generate, Plain

VOCABULARY = 12
END = 0

labels_strategy = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple), min_size=2, max_size=9, unique=True
)


def logprob(history: Tokens, token: int) -> float:
    """The log-probability of a token in the imagined model, the long way round."""
    logits = imagined_logits(history, VOCABULARY).astype(np.float64)
    return float(logits[token] - math.log(sum(math.exp(value) for value in logits)))


def likelihood(prompt: Tokens, label: Tokens, labels: Sequence[Tokens]) -> float:
    """One label by itself, token by token; `END` counts where another label goes on from this one."""
    longer = any(other[: len(label)] == label and len(other) > len(label) for other in labels)
    tokens = (*label, END) if longer else label
    return sum(logprob((*prompt, *tokens[:n]), token) for n, token in enumerate(tokens))


def written(prompt: Tokens, request: Generate) -> str:
    """Greedy text of the imagined model, one token at a time."""
    text = ""
    for _ in range(request.max_tokens):
        token = int(imagined_logits((*prompt, *(ord(c) - 97 for c in text)), VOCABULARY).argmax())
        if token == END:
            return text
        text += chr(97 + token)
        if any(stop in text for stop in request.stop):
            return min((text.split(stop)[0] for stop in request.stop), key=len)
    return text


class TinyVocabulary:
    """Stands in for `LlamaModel`: token n is the n-th letter, `END` ends."""

    def piece(self, token: int) -> bytes:
        return bytes([97 + token])

    def is_end(self, token: int) -> bool:
        return token == END


# ── the label tree ───────────────────────────────────────────────────────────────────────────────


@given(labels_strategy)
def test_a_label_tree_sums_to_what_each_label_has_by_itself(labels: list[Tokens]) -> None:
    prompt = (7, 8)
    tree = LabelTree.of(labels, END)
    known = {
        (*row, token): logprob((*prompt, *row), token) for row in ((), *tree.rows) for token in tree.following[row]
    }
    for label, ended in zip(labels, tree.labels, strict=True):
        total = sum(known[ended[:length]] for length in range(1, len(ended) + 1))
        assert total == pytest.approx(likelihood(prompt, label, labels), abs=1e-9)


@given(labels_strategy)
def test_label_rows_are_prefix_closed_and_come_after_their_parents(labels: list[Tokens]) -> None:
    tree = LabelTree.of(labels, END)
    seen: set[Tokens] = {()}
    for row in tree.rows:
        assert row[:-1] in seen
        seen.add(row)
    assert len(tree.rows) == len(set(tree.rows))
    assert seen == {label[:length] for label in tree.labels for length in range(len(label))}


@given(labels_strategy)
def test_every_row_of_a_label_tree_runs_on_the_tips_below_it(labels: list[Tokens]) -> None:
    tree = LabelTree.of(labels, END)
    for row, branches in zip(tree.rows, tree.branches, strict=True):
        assert branches
        assert branches == tuple(n for n, tip in enumerate(tree.tips) if tip[: len(row)] == row)
    for number, tip in enumerate(tree.tips):
        path = [row for row, branches in zip(tree.rows, tree.branches, strict=True) if number in branches]
        assert sorted(path, key=len) == [tip[:length] for length in range(1, len(tip) + 1)]


@given(labels_strategy)
def test_wanted_tokens_are_those_that_a_label_goes_on_with_each_once(labels: list[Tokens]) -> None:
    tree = LabelTree.of(labels, END)
    for row in ((), *tree.rows):
        wanted = tree.following[row]
        assert len(set(wanted)) == len(wanted)
        assert set(wanted) == {ended[len(row)] for ended in tree.labels if ended[: len(row)] == row != ended}


def test_only_a_label_that_another_one_starts_with_gets_the_end_token() -> None:
    tree = LabelTree.of([(1,), (1, 2), (3,), (1, 2, 4)], END)
    assert tree.labels == ((1, END), (1, 2, END), (3,), (1, 2, 4))


def test_labels_of_one_token_need_no_row_of_their_own() -> None:
    tree = LabelTree.of([(1,), (2,), (3,)], END)
    assert (tree.rows, tree.tips) == ((), ())
    assert tree.following[()] == (1, 2, 3)


def test_labels_that_the_model_reads_alike_are_equally_likely() -> None:
    tree = LabelTree.of([(1, 2), (1, 2), (3,)], END)
    assert tree.labels == ((1, 2), (1, 2), (3,))


@given(labels_strategy, st.integers(0, 6))
def test_a_score_job_gives_the_likelihood_of_every_label(labels: list[Tokens], shared: int) -> None:
    prompt = (5, 6, 7, 8, 9, 10, 11)
    job = ScoreJob("key", np.array(prompt), LabelTree.of(labels, END))
    job.start(range(job.sequences_needed), shared)
    assert (job.segments[0].position, len(job.segments[0].tokens)) == (shared, 7 - shared)
    assert job.rows == job.rows_at_once(shared)[0]
    while job.segments:
        segment = job.segments.popleft()
        if segment.slot is not None:
            job.take(segment.slot, imagined_logits((*prompt, *segment.slot), VOCABULARY))
    assert job.result is not None
    assert job.result.prompt_tokens == 7
    assert job.result.loglikelihoods == tuple(rounded(likelihood(prompt, label, labels)) for label in labels)


@given(labels_strategy, st.lists(st.floats(-3, 3), min_size=9, max_size=9), st.booleans())
def test_a_winner_is_the_label_that_scoring_all_of_them_would_name(
    labels: list[Tokens], biases: list[float], biased: bool
) -> None:
    prompt = (5, 6, 7)
    bias = tuple(biases[: len(labels)]) if biased else ()
    job = WinnerJob("key", np.array(prompt), LabelTree.of(labels, END), bias)
    job.start([0], 0)
    while job.result is None:
        segment = job.segments.popleft()
        assert segment.slot is not None
        if segment.fork is not None:
            job.forked(segment.slot, len(job.sequences))
        assert len(job.sequences) <= job.sequences_most
        job.take(segment.slot, imagined_logits((*prompt, *segment.slot), VOCABULARY))
    totals = [
        rounded(likelihood(prompt, label, labels)) + (bias[number] if biased else 0.0)
        for number, label in enumerate(labels)
    ]
    assert job.result.winner == totals.index(max(totals))


def test_a_segment_is_taken_in_parts_without_losing_a_token() -> None:
    segment = Segment(np.arange(7, dtype=np.int32), 3, np.zeros(1, np.int32), (1,))
    seen: list[tuple[int, int]] = []
    rest: Segment | None = segment
    while rest:
        part = rest.first(3)
        seen += [(int(token), part.position + n) for n, token in enumerate(part.tokens)]
        rest = rest.after(part)
        assert (part.slot == (1,)) == (rest is None)
    assert seen == [(n, n + 3) for n in range(7)]


# ── choosing a token ─────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=40))
def test_the_normalizer_is_the_log_of_the_sum_of_exponentials(values: list[float]) -> None:
    expected = math.log(math.fsum(math.exp(value - max(values)) for value in values)) + max(values)
    assert log_normalizer(np.array(values, dtype=np.float32)) == pytest.approx(expected, abs=1e-4)


def test_the_normalizer_of_a_vocabulary_agrees_with_double_precision() -> None:
    logits = np.random.default_rng(0).normal(0, 8, 49_152).astype(np.float32)
    assert log_normalizer(logits) == pytest.approx(float(np.log(np.exp(logits.astype(np.float64)).sum())), abs=1e-5)


def frequencies(temperature: float, top_p: float, logits: Sequence[float], draws: int = 20_000) -> list[float]:
    rng = np.random.default_rng(1)
    row = np.array(logits, dtype=np.float32)
    found = [sample(row, temperature, top_p, rng.random(len(row))) for _ in range(draws)]
    return [found.count(token) / draws for token in range(len(row))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_sampling_draws_every_token_as_often_as_softmax_says(temperature: float) -> None:
    logits = [0.3, 2.0, -1.0, 1.5, -40.0]
    weights = np.exp(np.array(logits) / temperature)
    assert frequencies(temperature, 1.0, logits) == pytest.approx(list(weights / weights.sum()), abs=0.012)


def test_top_p_keeps_the_smallest_set_that_holds_it_in_their_proportions() -> None:
    logits = [math.log(p) for p in (0.15, 0.4, 0.3, 0.1, 0.05)]
    kept = [0.15 / 0.85, 0.4 / 0.85, 0.3 / 0.85, 0.0, 0.0]
    assert frequencies(1.0, 0.8, logits) == pytest.approx(kept, abs=0.012)
    assert frequencies(1.0, 0.01, logits, draws=50) == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_sampling_never_draws_what_a_grammar_has_masked() -> None:
    logits = [-math.inf, 0.0, -math.inf, 1.0]
    assert frequencies(5.0, 1.0, logits, draws=500)[::2] == [0.0, 0.0]
    assert frequencies(5.0, 0.99, logits, draws=500)[::2] == [0.0, 0.0]


def test_a_draw_outlasts_small_differences_of_the_logits() -> None:
    """What a batch changes in the logits (a hundredth, in F16) seldom changes a token.

    Measured: 7 of 500; drawing from the cumulated probabilities changed 45.
    """
    rng = np.random.default_rng(2)
    changed = 0
    for _ in range(500):
        logits = rng.normal(0, 3, 5_000).astype(np.float32)
        near = logits + rng.normal(0, 0.005, 5_000).astype(np.float32)
        uniforms = rng.random(5_000)
        changed += sample(logits, 0.8, 1.0, uniforms) != sample(near, 0.8, 1.0, uniforms)
    assert changed <= 12


@given(st.text("ab.", max_size=12), st.lists(st.text("ab.", max_size=3), max_size=3))
def test_the_earliest_stop_text_cuts(text: str, stops: list[str]) -> None:
    cut = first_stop(text, stops)
    places = [n for n in range(len(text)) for stop in stops if stop and text.startswith(stop, n)]
    assert cut == min(places, default=None)


# ── the prefix tree ──────────────────────────────────────────────────────────────────────────────


def bare(tokens: Sequence[int]) -> Job:
    return ScoreJob("key", np.array(tokens, dtype=np.int32), LabelTree.of([(1,), (2,)], END))


@given(st.lists(st.integers(0, 300), max_size=12), st.lists(st.integers(0, 300), max_size=12))
def test_the_shared_length_counts_equal_tokens_from_the_start(first: list[int], second: list[int]) -> None:
    expected = next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    expected = min(len(first), len(second)) if expected is None else expected
    assert shared_length(bare(first).order, bare(second).order) == expected


def test_tokens_sort_as_numbers_not_as_bytes_of_either_end() -> None:
    assert bare([1, 255]).order < bare([1, 256]).order < bare([256, 1]).order


def test_a_node_is_worth_adding_for_sixteen_new_tokens_and_never_holds_a_last_one() -> None:
    tree = PrefixTree()
    job, twin = bare(range(40)), bare(range(40))
    assert tree.worth_adding(job, [twin], known=0) == 39
    assert tree.worth_adding(job, [twin], known=39 - WORTHWHILE) == 39
    assert tree.worth_adding(job, [twin], known=40 - WORTHWHILE) == 0
    assert tree.worth_adding(job, [], known=0) == 0


def grow(tree: PrefixTree, tokens: Sequence[int], now: int) -> Node:
    """A computed node for these tokens, below whatever the tree knows of them."""
    job = bare([*tokens, 0])
    match = tree.match(job)
    if match.node and match.length < match.node.end:
        above = tree.split(match.node, match.length, sequence=100 + now)
        match = tree.match(job)
        assert match.node is above
    node = tree.add(job, match, len(tokens), sequence=now, now=now)
    node.segment, node.ready = None, True
    return node


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=12), min_size=1, max_size=12))
def test_the_tree_knows_exactly_the_beginnings_it_was_given(prompts: list[list[int]]) -> None:
    tree = PrefixTree()
    for now, tokens in enumerate(prompts):
        if tree.match(bare([*tokens, 0])).length < len(tokens):
            grow(tree, tokens, now)
    beginnings = {tuple(tokens[:length]) for tokens in prompts for length in range(1, len(tokens) + 1)}
    assert tree.cells == len(beginnings) == sum(len(node.tokens) for node in tree)
    for tokens in prompts:
        assert tree.match(bare([*tokens, 0])).length == len(tokens)
        assert tree.match(bare([*tokens, 9, 0])).length == len(tokens)
    for node in tree:
        assert node.parent is None or node.parent.end == node.start


def test_a_node_in_the_way_is_cut_in_two_and_both_halves_stay() -> None:
    tree = PrefixTree()
    lower = grow(tree, [1, 2, 3, 4, 5], 0)
    other = grow(tree, [1, 2, 3, 9], 1)
    assert (lower.start, lower.end, other.start, other.end) == (3, 5, 3, 4)
    assert lower.parent is other.parent is not None
    assert (lower.parent.start, lower.parent.end) == (0, 3)
    assert tree.cells == 6


def test_the_node_unused_longest_goes_first_and_one_in_use_never() -> None:
    tree = PrefixTree()
    first, second, third = (grow(tree, [n] * 20, n) for n in (1, 2, 3))
    assert tree.oldest_idle(now=9) is first
    first.users = 1
    assert tree.oldest_idle(now=9) is second
    assert tree.oldest_idle(now=2) is None, "nothing else was used before"
    below = grow(tree, [2] * 20 + [1] * 20, 4)
    assert tree.oldest_idle(now=9) is third, "another node stands on the second"
    park(tree, third)
    assert tree.oldest_idle(now=9) is below
    park(tree, below)
    assert tree.oldest_idle(now=9) is second, "what stood on it is no longer in the cache"


def park(tree: PrefixTree, node: Node) -> None:
    node.state = np.zeros(1, np.uint8)
    tree.park(node)


def test_parked_nodes_are_found_again_and_those_unused_longest_are_forgotten_from_the_leaves() -> None:
    tree = PrefixTree()
    upper, other = grow(tree, [1] * 20, 1), grow(tree, [2] * 20, 2)
    lower = grow(tree, [1] * 20 + [3] * 10, 3)
    assert (tree.cells, tree.parked) == (50, 0)
    for node in (lower, upper, other):
        park(tree, node)
    assert (tree.cells, tree.parked) == (0, 50)
    assert tree.match(bare([*([1] * 20), *([3] * 10), 0])).node is lower
    tree.bring(other, 7)
    assert (tree.cells, tree.parked, other.sequence) == (20, 30, 7)
    tree.forget_parked(25)
    assert tree.match(bare([*([1] * 20), *([3] * 10), 0])).node is upper
    tree.forget_parked(0)
    assert list(tree) == [other]


# ── batches ──────────────────────────────────────────────────────────────────────────────────────


class Bench:
    """A scheduler over an imagined context, run to the end."""

    def __init__(self, cells: int = 256, batch_rows: int = 32, parallel: int = 8, ordered: bool = False) -> None:
        self.context = ImaginedContext(cells, batch_rows, VOCABULARY)
        self.scheduler = Scheduler(cast(LlamaContext, self.context), parallel, ordered)
        self.done: dict[str, Completion] = {}

    def score(self, key: str, prompt: Tokens, labels: Sequence[Tokens]) -> ScoreJob:
        return ScoreJob(key, np.array(prompt, dtype=np.int32), LabelTree.of(labels, END))

    def winner(self, key: str, prompt: Tokens, labels: Sequence[Tokens], bias: tuple[float, ...] = ()) -> WinnerJob:
        return WinnerJob(key, np.array(prompt, dtype=np.int32), LabelTree.of(labels, END), bias)

    def generate(self, key: str, prompt: Tokens, request: Generate) -> GenerateJob:
        tokens = np.array(prompt, dtype=np.int32)
        return GenerateJob(key, tokens, request, cast(LlamaModel, TinyVocabulary()), seed=0)

    def run(self, jobs: Sequence[Job], most_steps: int = 20_000) -> dict[str, Completion]:
        self.scheduler.add(jobs)
        for _ in range(most_steps):
            if not self.scheduler.busy:
                return self.done
            self.step()
        raise AssertionError(f"still busy after {most_steps} steps, {len(self.done)} of {len(jobs)} done")

    def step(self) -> None:
        for completion in self.scheduler.step():
            assert completion.key not in self.done
            self.done[completion.key] = completion


STEMS = (tuple(range(1, 12)) * 3, tuple(range(11, 0, -1)) * 2, (3,) * 18, ())
prompts_strategy = st.builds(
    lambda stem, length, tail: (*STEMS[stem][:length], *tail),
    st.integers(0, 3),
    st.integers(0, 33),
    st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=12),
)
asked_strategy = st.one_of(
    st.tuples(prompts_strategy, labels_strategy, st.booleans()),
    st.tuples(
        prompts_strategy,
        st.builds(
            Generate,
            st.just(Plain("")),
            max_tokens=st.integers(1, 12),
            stop=st.lists(st.text("bcdefghijkl", min_size=1, max_size=2), max_size=2).map(tuple),
        ),
        st.just(False),
    ),
)


@settings(max_examples=150)
@given(
    st.lists(asked_strategy, min_size=1, max_size=24),
    st.integers(50, 200),
    st.integers(8, 48),
    st.integers(1, 9),
    st.integers(0, 12),
    st.booleans(),
)
def test_any_mixture_of_jobs_in_any_cache_gets_the_answers_of_one_job_at_a_time(
    asked: list[tuple[Tokens, list[Tokens] | Generate, bool]],
    cells: int,
    batch_rows: int,
    parallel: int,
    late: int,
    ordered: bool,
) -> None:
    bench = Bench(cells, batch_rows, parallel, ordered)
    jobs: list[Job] = []
    expected: dict[str, tuple[float, ...] | int | str] = {}
    for number, (prompt, wanted, one) in enumerate(asked):
        key = str(number)
        job: Job
        if isinstance(wanted, Generate):
            job = bench.generate(key, prompt, wanted)
            expected[key] = written(prompt, wanted)
        else:
            scores = tuple(rounded(likelihood(prompt, label, wanted)) for label in wanted)
            job = bench.winner(key, prompt, wanted) if one else bench.score(key, prompt, wanted)
            expected[key] = scores.index(max(scores)) if one else scores
        assert bench.scheduler.refusal(job) is None or len(prompt) + job.extra_cells > cells
        if bench.scheduler.refusal(job) is None:
            jobs.append(job)
        else:
            del expected[key]
    bench.scheduler.add(jobs[late:])
    if bench.scheduler.busy:
        bench.step()
    done = bench.run(jobs[:late])
    assert done.keys() == expected.keys()
    for key, answer in expected.items():
        completion = done[key]
        assert answer in (completion.text, completion.loglikelihoods, completion.winner)
    nodes = {node.sequence for node in bench.scheduler._cells.tree} - {None}
    assert bench.context.held - {_GRAVE} == nodes, "every other sequence is free again"
    assert ordered or _GRAVE not in bench.context.held


def test_a_shared_beginning_is_computed_once() -> None:
    stem = STEMS[0]
    prompts = [(*stem, number, 2, 3) for number in range(1, 8)]
    bench = Bench(batch_rows=512)
    done = bench.run([bench.score(str(n), prompt, [(1,), (2,)]) for n, prompt in enumerate(prompts)])
    assert bench.context.decoded_rows == len(stem) + 3 * 7
    assert [done[str(n)].computed_tokens for n in range(7)] == [3] * 7
    assert [done[str(n)].prompt_tokens for n in range(7)] == [len(stem) + 3] * 7


def test_nested_beginnings_are_computed_once_each() -> None:
    whole = STEMS[0]
    inner = (*whole, *STEMS[1])
    prompts = [(*whole, 9, n) for n in range(1, 4)] + [(*inner, 2, n) for n in range(1, 4)]
    bench = Bench(batch_rows=512)
    bench.run([bench.score(str(n), prompt, [(1,), (2,)]) for n, prompt in enumerate(prompts)])
    beginnings = {prompt[:length] for prompt in prompts for length in range(1, len(prompt) + 1)}
    assert bench.context.decoded_rows == len(beginnings)
    assert len(beginnings) < sum(map(len, prompts)) / 3


def test_a_beginning_stays_for_those_who_come_later() -> None:
    bench = Bench(batch_rows=512)
    stem = STEMS[0]
    rows = []
    for attempt in range(2):
        before = bench.context.decoded_rows
        bench.run([bench.score(f"{attempt} {n}", (*stem, attempt + 1, n), [(1,), (2,)]) for n in range(1, 4)])
        rows.append(bench.context.decoded_rows - before)
    assert rows == [len(stem) + 1 + 3, 2 * 3]


def test_with_order_no_cell_is_given_back_while_anything_runs() -> None:
    bench = Bench(cells=256, batch_rows=16, ordered=True)
    request = Generate(Plain(""), max_tokens=12)
    jobs = [bench.generate(str(n), (*STEMS[0][:6], n), request) for n in range(1, 9)]
    bench.scheduler.add(jobs)
    most = 0
    while bench.scheduler.busy:
        before = bench.context.used
        bench.step()
        assert bench.context.used >= before or bench.context.used <= 16, "freed in the middle"
        most = max(most, bench.context.used)
    assert most > 40


def test_many_labels_cost_a_winner_a_fraction_of_the_rows() -> None:
    """A search goes on where a label must: few steps rather than the fewest rows; here all are nearly as good."""
    labels: list[Tokens] = [(1 + n % 11, 1 + n // 11, 5, 1 + n % 5) for n in range(77)]
    whole, part = Bench(cells=512, batch_rows=64), Bench(cells=512, batch_rows=64)
    scored = whole.run([whole.score("all", (7, 8, 9), labels)])["all"].loglikelihoods or ()
    won = part.run([part.winner("one", (7, 8, 9), labels)])["one"]
    assert won.winner == scored.index(max(scored))
    assert won.computed_tokens < 0.7 * whole.context.decoded_rows


@pytest.mark.parametrize("ordered", [False, True])
def test_winners_that_run_out_of_sequences_together_all_finish(ordered: bool) -> None:
    """The bias makes every label about as good, so that each search looks at nearly all of its 81 branches."""
    labels: list[Tokens] = [
        (1 + n // 81, 1 + n // 27 % 3, 1 + n // 9 % 3, 1 + n // 3 % 3, 1 + n % 3) for n in range(243)
    ]
    bench = Bench(cells=8192, batch_rows=512, ordered=ordered)
    prompts = [(*STEMS[0], n, 7) for n in range(1, 9)]
    jobs: list[Job] = []
    for n, prompt in enumerate(prompts):
        totals = [likelihood(prompt, label, labels) for label in labels]
        bias = tuple(-total + (0.01 if number == 100 + n else 0.0) for number, total in enumerate(totals))
        jobs.append(WinnerJob(str(n), np.array(prompt), LabelTree.of(labels, END), bias))
    most = 0
    bench.scheduler.add(jobs)
    done: dict[str, Completion] = {}
    while bench.scheduler.busy:
        done |= {completion.key: completion for completion in bench.scheduler.step()}
        most = max(most, len(bench.context.held))
    assert most > 240, "they should run out of sequences"
    assert [done[str(n)].winner for n in range(8)] == [100 + n for n in range(8)]


def test_hundreds_of_jobs_through_two_lanes_and_a_small_cache_all_finish() -> None:
    bench = Bench(cells=64, batch_rows=16, parallel=2)
    prompts = [(*STEMS[n % 4][: n % 34], 1 + n % 11, 1 + n // 11 % 11, 1 + n // 121) for n in range(300)]
    request = Generate(Plain(""), max_tokens=4)
    jobs: list[Job] = [
        bench.generate(str(n), prompt, request)
        if n % 2
        else bench.score(str(n), prompt, [(1, 2, 3), (1, 2), (2, 4), (3, 4, 5)])
        for n, prompt in enumerate(prompts)
    ]
    assert len(bench.run(jobs)) == 300


def test_seventy_seven_branching_labels_run_though_there_are_fewer_lanes() -> None:
    labels: list[Tokens] = [(1 + n % 11, 1 + n // 11, 5, 1 + n % 5) for n in range(77)]
    bench = Bench(cells=512, batch_rows=64, parallel=4)
    done = bench.run([bench.score(str(n), (n, 7, 8), labels) for n in range(1, 5)])
    for n in range(1, 5):
        expected = tuple(rounded(likelihood((n, 7, 8), label, labels)) for label in labels)
        assert done[str(n)].loglikelihoods == expected


def test_a_job_larger_than_the_cache_is_refused_with_both_numbers() -> None:
    bench = Bench(cells=64)
    refusal = bench.scheduler.refusal(bench.generate("key", (1,) * 60, Generate(Plain(""), max_tokens=5)))
    assert refusal is not None
    assert "65" in refusal
    assert "64" in refusal
    assert bench.scheduler.refusal(bench.generate("key", (1,) * 60, Generate(Plain(""), max_tokens=4))) is None


def test_a_job_that_fills_the_whole_cache_waits_until_it_is_empty() -> None:
    bench = Bench(cells=64, batch_rows=64)
    request = Generate(Plain(""), max_tokens=4)
    prompts = {"large": (5,) * 60, **{str(n): (*STEMS[0][:20], n) for n in range(1, 6)}}
    done = bench.run([bench.generate(key, prompt, request) for key, prompt in prompts.items()])
    assert {key: completion.text for key, completion in done.items()} == {
        key: written(prompt, request) for key, prompt in prompts.items()
    }


def test_a_beginning_that_running_jobs_stand_on_makes_room_for_nobody() -> None:
    """Dropping its trunk would free no cell while they run; counting on it would overfill the cache."""
    bench = Bench(cells=64, batch_rows=64)
    slow, quick = Generate(Plain(""), max_tokens=12), Generate(Plain(""), max_tokens=6)
    lasting = [n for n in range(1, 12) if len(written((*STEMS[0][:20], n), slow)) == 12][:2]
    large = next((n,) * 32 for n in range(2, 12) if len(written((n,) * 32, quick)) == 6)
    assert len(lasting) == 2
    bench.scheduler.add([bench.generate(f"slow {n}", (*STEMS[0][:20], n), slow) for n in lasting])
    for _ in range(3):
        bench.step()
    assert bench.context.used >= 22
    done = bench.run([bench.generate("large", large, quick)])
    assert len(done) == 3
    assert done["large"].text == written(large, quick)


def test_an_empty_prompt_is_refused() -> None:
    bench = Bench()
    assert bench.scheduler.refusal(bench.score("key", (), [(1,), (2,)])) == "the prompt is empty"


def test_cancelled_jobs_leave_nothing_behind() -> None:
    bench = Bench(cells=128, batch_rows=8)
    request = Generate(Plain(""), max_tokens=12)
    jobs = [bench.generate(str(n), (*STEMS[0], n), request) for n in range(1, 9)]
    bench.scheduler.add(jobs)
    for _ in range(7):
        bench.step()
    bench.scheduler.clear()
    assert not bench.scheduler.busy
    assert bench.context.held == set()
    bench.done.clear()
    again = [replace(request, max_tokens=6)] * 8
    done = bench.run([bench.generate(f"new {n}", (*STEMS[0], n), r) for n, r in enumerate(again, start=1)])
    assert {key: c.text for key, c in done.items()} == {
        f"new {n}": written((*STEMS[0], n), again[0]) for n in range(1, 9)
    }


def test_after_a_failed_decode_nothing_is_built_on_what_it_left() -> None:
    class FailingOnce(ImaginedContext):
        """A context whose first decode fails and leaves no row in the cache."""

        failed = False

        def decode(self) -> NDArray[np.float32]:
            if self.failed:
                return super().decode()
            self.failed = True
            self._batch, self.rows = [], 0
            raise ModelError("llama_decode failed with status 1")

    bench = Bench()
    bench.context = FailingOnce(256, 64, VOCABULARY)
    bench.scheduler = Scheduler(cast(LlamaContext, bench.context), 8, ordered=False)
    request = Generate(Plain(""), max_tokens=4)
    prompts = [(*STEMS[0], number) for number in range(1, 5)]
    bench.scheduler.add([bench.generate("first", prompts[0], request), bench.generate("second", prompts[1], request)])
    with pytest.raises(ModelError):
        bench.step()
    bench.scheduler.clear()
    assert not bench.scheduler.busy
    done = bench.run([bench.generate(str(n), prompt, request) for n, prompt in enumerate(prompts)])
    assert [done[str(n)].text for n in range(4)] == [written(prompt, request) for prompt in prompts]
