"""What proposers of words are made of: places of texts, variants, narrowing, plain briefs and forms, rewording."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from support_evolution import candidate
from support_gbnf import Gbnf
from support_optim import EXACT, closed_program, history_of, open_program, rows, runtime_of

from engine.feedback.packing import Part
from engine.inference.scripted import Answer
from engine.optim.history import Candidate, History, Proposal
from engine.optim.narrowing import calls_a_row, narrowed
from engine.optim.words.rewording import reworded
from engine.optim.words.telling import on_a_line
from engine.optim.words.texts import next_text
from engine.optim.words.variants import Variant, alike_but_for, variants
from engine.optim.words.writing import Brief, particular, written
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Refine, Vote
from engine.program.library import architecture
from engine.program.places import place_of, steps_of
from engine.program.typed.grammar import Exactly, OneOf, Repeat, Then, prose
from engine.records import Generate, Plain, Request, Score

NAME = "colour.instruction"

# ── places ───────────────────────────────────────────────────────────────────────────────────────


def echoing(request: Request, prompt: str) -> Answer:
    """Writes the instruction that it was given."""
    return prompt.split("\n")[1]


def test_what_was_done_under_a_text_is_found_at_any_depth() -> None:
    program = architecture("self_consistency", ("text",), n=2, instruction="Answer it.")
    refined = Refine(Predict("Draft it.", output="draft"), critique="Find fault.", rounds=1, keep="last")
    both = Program(refined(Input("text"), name="first"))
    with runtime_of(echoing) as runtime:
        (trace,) = runtime.run(EXACT.run(program, rows(1)))
        (other,) = runtime.run(EXACT.run(both, rows(1)))

    def written_under(steps: Sequence, name: str) -> list[str]:  # type: ignore[type-arg]
        return [text for step in steps_of(steps, name) for text in step.outputs.values()]

    assert written_under(trace.steps, "answer.of.steps.reason.instruction") == ["Think step by step."] * 2
    assert written_under(trace.steps, "answer.of.steps.answer.instruction") == ["Answer it."] * 2
    assert written_under(trace.steps, "answer.n") == ["Answer it."]
    assert written_under(trace.steps, "gone.instruction") == []
    assert written_under(other.steps, "first.of.instruction") == ["Draft it."]
    assert written_under(other.steps, "first.critique") == ["Find fault."]
    reason = place_of(program, "answer.of.steps.reason.instruction").layer
    assert isinstance(reason, Predict)
    assert reason.instruction == "Think step by step."
    assert isinstance(place_of(program, "answer.n").layer, Vote)


def test_an_example_stands_on_a_line() -> None:
    assert on_a_line({"first_word": "hot\nand dry"}, {"opposite": "x" * 200}).startswith(
        "First word: hot and dry -> Opposite: " + "x" * 159 + "…"
    )


def test_a_text_that_was_edited_less_is_likelier_to_be_next() -> None:
    program = open_program()
    edits = {"hint.instruction": "Hint."}
    others = [Candidate(n, program, (), 1, "mine", edits=edits) for n in range(1, 4)]
    others.append(Candidate(4, program, (), 1, "another", edits={NAME: "Say."}))
    history = history_of(program, rows(3), others=others)
    names = ["hint.instruction", NAME]
    drawn = Counter(next_text(history, "mine", names, default_rng(seed)) for seed in range(400))
    assert drawn[NAME] / 400 == pytest.approx(4 / 5, abs=0.06), "1 against 1 in 1 + 3"
    assert min(drawn.values()) > 0


# ── variants ─────────────────────────────────────────────────────────────────────────────────────


def tried(number: int, text: str, scores: Sequence[float], loss: float | None = None, **edits: object) -> Candidate:
    """A candidate that was made of the closed program, and has these scores on the first rows of dev."""
    one = candidate(number, closed_program(), scores, 0, {NAME: text, **edits})
    return Candidate(number, one.program, one.traces, 1, "test", edits=one.edits, train_loss=loss)


def history_with(*others: Candidate) -> History:
    first = candidate(0, closed_program(), [1, 0, 0, 0])
    return history_of(closed_program(), rows(9), traces=first.traces, others=others)


def test_texts_are_ordered_by_what_they_would_make_of_the_incumbent() -> None:
    history = history_with(
        tried(1, "Best.", [1, 1, 1, 0], 1.0),
        tried(2, "Worse.", [0, 0, 0, 0], 2.0, **{"colour.bias": (1.0, 0.0, 0.0)}),
        tried(3, "Other demos.", [1, 1, 1, 1], 0.1, **{"colour.style": "plain"}),
    )
    assert variants(history, NAME) == [
        Variant("Worse.", 0.0),
        Variant("Name the colour.", 0.25),
        Variant("Best.", 0.75),
    ]
    assert list(alike_but_for(history, history.program, NAME)) == ["Name the colour.", "Best.", "Worse."]


def test_what_saw_a_part_of_dev_is_compared_on_that_part() -> None:
    found = variants(history_with(tried(1, "Half.", [1, 1], 1.0)), NAME)
    assert found == [Variant("Name the colour.", 0.25), Variant("Half.", 0.75)], "one of two rows better"


def test_what_never_raced_is_worth_no_more_than_the_worst_that_raced_with_no_greater_loss() -> None:
    raced = (tried(1, "First.", [1, 1, 0, 0], 1.0), tried(2, "Second.", [1, 0, 0, 0], 2.0))
    unseen = (tried(3, "Between.", [], 1.5), tried(4, "Beyond.", [], 3.0), tried(5, "Before.", [], 0.5))
    values = {one.text: one.value for one in variants(history_with(*raced, *unseen), NAME)}
    assert values == {"First.": 0.5, "Second.": 0.25, "Between.": 0.5, "Beyond.": 0.25, "Name the colour.": 0.25}


def test_of_several_candidates_with_one_text_the_one_that_saw_most_counts() -> None:
    history = history_with(
        tried(1, "Twice.", [0, 0], 1.0), tried(2, "Twice.", [1, 1, 1, 1], 1.0, **{"colour.bias": (0.0, 1.0, 0.0)})
    )
    assert alike_but_for(history, history.program, NAME)["Twice."].number == 2


# ── halving ──────────────────────────────────────────────────────────────────────────────────────


def by_number(request: Request, prompt: str) -> Answer:
    """The higher the number in the instruction, the likelier the right colour."""
    assert isinstance(request, Score)
    number = float(prompt.split("number ")[1].split(".")[0]) if "number " in prompt else 0.0
    right = prompt.rstrip().split("\n")[-2].split()[-1]
    return [number * (word == right) for word in request.continuations]


def numbered(count: int) -> list[Proposal]:
    return [Proposal({NAME: f"Say number {n}."}, "test") for n in range(count)]


def halving(count: int, keep: int, calls: int, train: int = 80) -> tuple[list[int], int]:
    """The numbers that are kept of so many, and the calls that it took."""
    history = history_of(closed_program(), rows(train), calibrates=False)
    with runtime_of(by_number) as runtime:
        kept = runtime.run(narrowed(history, numbered(count), keep, calls, history.train))
        numbers = [int(str(proposal.edits[NAME]).split()[-1].strip(".")) for proposal in kept]
        return numbers, runtime.usage.calls


def test_the_better_half_is_measured_on_twice_as_many_rows() -> None:
    assert halving(8, 2, 256) == ([7, 6], 8 * 16 + 4 * 32)


def test_no_stage_has_too_few_rows_to_tell_by() -> None:
    assert halving(8, 2, 130) == ([7, 6], 8 * 16), "one stage"
    assert halving(8, 2, 70) == ([3, 2], 4 * 17), "the last four are let go"
    assert halving(8, 2, 20) == ([0, 1], 0), "nothing can be measured"
    assert halving(3, 4, 500) == ([0, 1, 2], 0), "nothing has to be"


@settings(max_examples=12)
@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 500))
def test_halving_keeps_to_its_calls_and_to_the_best_it_measured(count: int, keep: int, calls: int) -> None:
    kept, used = halving(count, keep, calls)
    assert used <= calls
    assert len(kept) == min(count, keep)
    if used:
        seen = max(keep, min(count, calls // 16))
        assert kept == sorted(range(seen), reverse=True)[:keep]


def test_a_row_takes_as_many_calls_as_on_dev_or_as_estimated() -> None:
    program = open_program()
    with runtime_of(echoing) as runtime:
        traces = runtime.run(EXACT.run(program, rows(3)))
    assert calls_a_row(Candidate(0, program, tuple(traces)), rows(3)) == 2
    assert calls_a_row(Candidate(0, program, ()), rows(3)) == 2
    assert calls_a_row(Candidate(0, architecture("self_consistency", ("text",), n=3), ()), rows(3)) == 6


# ── plain briefs, forms, rewording ───────────────────────────────────────────────────────────────


def asked(brief: Brief, *answers: str) -> tuple[list[str], list[Generate]]:
    """What comes of a brief where the model gives these answers, and what it was asked."""
    requests: list[Generate] = []

    def script(request: Request, prompt: str) -> Answer:
        assert isinstance(request, Generate)
        requests.append(request)
        return answers[len(requests) - 1]

    with runtime_of(script) as runtime:
        flow = written(history_of(closed_program(), rows(5)), brief, len(answers), default_rng(0))
        return runtime.run(flow), requests


def test_a_plain_brief_is_a_text_to_go_on_from() -> None:
    shown = (("Task: add\nInstruction:", "Add up all of the numbers."),)
    brief = Brief("Find it.", (Part("Task: name"), Part("Instruction:")), shown=shown, plain=True, top_p=0.5)
    found, (first, *_) = asked(brief, " Name it.", " a -> b.", " Add up all of the numbers now.")
    expected = "Find it.\n\nTask: add\nInstruction: Add up all of the numbers.\n\nTask: name\nInstruction:"
    assert first.prompt == Plain(expected)
    assert first.top_p == 0.5
    assert first.grammar == prose(400, before=" ")
    assert found == ["Name it."], "neither the prompt's own form nor the words of another task"


def test_prose_may_go_on_from_a_label() -> None:
    assert prose(40, before=" ") == r'root ::= " " [A-Z] [^\n\x00-\x1f]{10,40} [.] "\n"?'
    assert prose(40, ["Read"], " ") == r'root ::= " " ("Read ") [a-z] [^\n\x00-\x1f]{10,40} [.] "\n"?'


def test_what_is_about_one_example_is_told_apart() -> None:
    shown = "Problem: Jessica has 24 pages. How many pages are left?"
    assert particular("Count the pages that Jessica has.", shown)
    assert particular("Begin with 24 and count.", shown)
    assert not particular("Jessica. How many pages are left", shown), "a sentence may begin so for no reason"
    assert not particular("Read.\n2. How many are there, and are 3 left.", shown)


def test_an_opening_does_not_count_as_repeated() -> None:
    shown = (("Reason:", "The instruction does not say how long it is."),)
    brief = Brief("Say why.", (Part("Reason:"),), shown=shown, openings=("The instruction does",), plain=True)
    found, _ = asked(brief, "The instruction does not say what it is.", "The instruction does not say how long it was.")
    assert found == ["The instruction does not say what it is."]


def test_a_form_bounds_what_is_written_and_what_is_read() -> None:
    word = Repeat(OneOf(((0x61, 0x7A),)), 1, 8)
    form = Then((word, Exactly("\n2. "), word))
    found, (first, *_) = asked(
        Brief("List.", (Part("1."),), plain=True, form=form), " one\n2. two\n", " one", "One\n2. t"
    )
    assert found == ["one\n2. two"]
    assert first.stop == ()
    grammar = Gbnf(first.grammar or "")
    assert grammar.admits(" one\n2. two")
    assert grammar.admits(" one\n2. two\n")
    assert not grammar.admits(" one\n2. two\n3. three")


def test_a_rewording_is_never_the_text_itself() -> None:
    with runtime_of(lambda request, prompt: ["Name the hue.", "Name it."][request.sample % 2]) as runtime:  # type: ignore[union-attr]
        history = history_of(closed_program(), rows(3))
        assert runtime.run(reworded(history, "Name it.", 4, default_rng(0))) == ["Name the hue."]
