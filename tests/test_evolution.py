"""Proposers that evolve what a run has raced: their parents, what is asked in which order, what is let through."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng
from support_evolution import Scribe, candidate
from support_optim import COLOURS, closed_program, history_of, open_program, proposed, rows, runtime_of

from engine import open_runtime
from engine.inference.scripted import Answer, keyword_script
from engine.optim.history import Candidate, History
from engine.optim.merging import merged, merges
from engine.optim.proposers import make_proposers
from engine.optim.proposers.evoprompt_de import EvoPromptDEProposer
from engine.optim.proposers.evoprompt_ga import EvoPromptGAProposer
from engine.optim.proposers.gepa import GEPAProposer
from engine.optim.words.population import SIZE, Member, differing, population, roulette
from engine.program.graph import Program
from engine.records import Chat, Generate, Request, Score
from engine.store.keys import seed_of

NAME = "colour.instruction"
TEXTS = ("Say the colour.", "Find the last word.", "Look at the end.", "Read it slowly.", "Tell which one.")


def raced(program: Program, table: Sequence[tuple[dict[str, Any], Sequence[float]]], **settings: Any) -> History:
    """A run whose candidates, all made from the program as given, have these edits and scores on dev."""
    first, *rest = [candidate(number, program, scores, 0, edits) for number, (edits, scores) in enumerate(table)]
    return history_of(program, rows(40), traces=first.traces, others=rest, **settings)


def grown(count: int) -> History:
    """A run that has raced so many texts, each better than the one before."""
    table = [({NAME: text} if text else {}, [float(place <= number) for place in range(6)]) for number, text in
             enumerate(("", *TEXTS[: count - 1]))]  # fmt: skip
    return raced(closed_program(), table)


def counting(request: Request, prompt: str) -> Answer:
    """Writes something else for every request."""
    if isinstance(request, Generate):
        return f"Write number {seed_of(prompt, request.sample) % 100_000} of them."
    return keyword_script(request, prompt)


# ── populations ──────────────────────────────────────────────────────────────────────────────────


def population_of(history: History, scribe: Scribe) -> list[Member]:
    with runtime_of(scribe) as runtime:
        return runtime.run(population(history, NAME, default_rng(0)))


def test_a_population_is_the_best_texts_of_the_run_each_once() -> None:
    history = grown(6)
    same = candidate(6, closed_program(), [0.0] * 6, 0, {NAME: TEXTS[4], "colour.style": "plain"})
    history = history_of(
        closed_program(), rows(9), traces=history.candidates[0].traces, others=[*history.candidates[1:], same]
    )
    scribe = Scribe(counting)
    members = population_of(history, scribe)
    assert [member.text for member in members] == [*reversed(TEXTS), "Name the colour."]
    assert members[0].candidate.number == 5, "of two candidates with one text the better one"
    assert scribe.asked == [], "a population that is full needs no paraphrases"


def test_a_small_population_is_filled_up_with_paraphrases_of_the_best() -> None:
    history = grown(2)
    scribe = Scribe(counting)
    members = population_of(history, scribe)
    assert len(members) == SIZE
    assert scribe.asked == [f"Instruction: {TEXTS[0]}"] * (SIZE - 2)
    assert {member.candidate.number for member in members[2:]} == {1}


def test_the_roulette_wheel_favours_the_better_and_none_where_all_are_worth_nothing() -> None:
    members = population_of(grown(3), Scribe(lambda request, prompt: ""))
    assert [member.value for member in members] == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    rng = default_rng(0)
    drawn = Counter(roulette(members, rng).value for _ in range(3000))
    assert [round(drawn[member.value] / 3000, 1) for member in members] == [0.5, 0.3, 0.2]
    worthless = [Member(member.text, member.candidate, 0.0) for member in members]
    assert len({roulette(worthless, rng).text for _ in range(50)}) == 3


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_differing_parts_are_runs_of_words_of_one_of_two_texts(one: list[str], other: list[str]) -> None:
    first, second = " ".join(one), " ".join(other)
    parts = differing(first, second)
    assert all(f" {part} " in f" {first} " or f" {part} " in f" {second} " for part in parts)
    assert bool(parts) == (one != other)
    assert len(parts) <= 3


def test_differing_parts_by_hand() -> None:
    assert differing("Read the question carefully.", "Read the text and answer.") == [
        "question carefully",
        "text and answer",
    ]


# ── EvoPrompt ────────────────────────────────────────────────────────────────────────────────────


def test_a_child_is_crossed_over_from_two_parents_and_then_mutated() -> None:
    def answer(request: Request, prompt: str) -> Answer:
        assert isinstance(request, Generate)
        assert isinstance(request.prompt, Chat)
        return "Cross both of them." if "Instruction 2:" in request.prompt.messages[-1].text else "Mutate the child."

    history = grown(6)
    scribe = Scribe(answer)
    (proposal, *_) = proposed(EvoPromptGAProposer(), history, scribe)
    crossings = [text for text in scribe.asked if "Instruction 2:" in text]
    mutations = [text for text in scribe.asked if "Instruction 2:" not in text]
    assert len(crossings) == len(mutations) == 6, "three children, two samples each"
    assert set(mutations) == {"Instruction: Cross both of them."}
    assert scribe.asked.index(mutations[0]) > scribe.asked.index(crossings[0])
    values = {one.program.parameters[NAME].value: history.value(one) for one in history.candidates}
    parents = [line.split(": ", 1)[1] for line in crossings[0].split("\n")]
    assert parents[0] != parents[1]
    assert set(parents) <= set(values)
    assert proposal.edits == {NAME: "Mutate the child."}
    assert proposal.parent is not None
    assert history.value(proposal.parent) == max(values[parent] for parent in parents), "it keeps the better's weights"


def test_without_a_second_parent_the_only_one_is_mutated() -> None:
    def answer(request: Request, prompt: str) -> Answer:
        assert isinstance(request, Generate)
        assert isinstance(request.prompt, Chat)
        return "Mutate it." if "change a few words" in request.prompt.messages[0].text else ""

    scribe = Scribe(answer)
    (proposal, *_) = proposed(EvoPromptGAProposer(), grown(1), scribe)
    assert proposal.edits == {NAME: "Mutate it."}
    assert not any("Instruction 2:" in text for text in scribe.asked)


def test_differential_evolution_combines_differing_parts_with_the_best_and_crosses_with_the_member() -> None:
    def answer(request: Request, prompt: str) -> Answer:
        assert isinstance(request, Generate)
        assert isinstance(request.prompt, Chat)
        return "Use the donor." if "Words to use:" in request.prompt.messages[-1].text else "Try the trial."

    history = grown(6)
    scribe = Scribe(answer)
    proposals = proposed(EvoPromptDEProposer(), history, scribe)
    donors = [text for text in scribe.asked if "Words to use:" in text]
    crossings = [text for text in scribe.asked if "Instruction 2:" in text]
    assert len(donors) == len(crossings) == 6
    assert all(text.startswith(f"Instruction: {TEXTS[4]}\n") for text in donors), "the best of the population"
    assert all(text.endswith("Instruction 2: Use the donor.") for text in crossings)
    assert [proposal.edits for proposal in proposals] == [{NAME: "Try the trial."}] * 3
    for proposal in proposals:
        assert proposal.parent is not None
        own = proposal.parent.program.parameters[NAME].value
        assert f"Instruction 1: {own}\nInstruction 2: Use the donor." in crossings
    assert len({proposal.parent.number for proposal in proposals if proposal.parent}) == 3, "one trial a member"


def test_differential_evolution_needs_three_members() -> None:
    silent = Scribe(lambda request, prompt: "")
    assert proposed(EvoPromptDEProposer(), grown(2), silent) == []
    assert proposed(EvoPromptDEProposer(), grown(3), Scribe(counting)) != []


@pytest.mark.parametrize("name", ["evoprompt_ga", "evoprompt_de", "gepa", "expel"])
def test_every_text_of_a_program_has_its_turn(name: str) -> None:
    (proposer,) = make_proposers((name,))
    program = open_program()
    edited: set[str] = set()
    for seed in range(12):
        history = history_of(program, rows(30), traces=(), round=1 + seed)
        found = proposed(proposer, history, better_when_told, seed)
        edited |= {parameter for proposal in found for parameter in proposal.edits}
    assert edited == {"hint.instruction", "colour.instruction"}


def better_when_told(request: Request, prompt: str) -> Answer:
    """Gets every third thing right, and all of them once an instruction has the word number in it."""
    if isinstance(request, Generate) and request.role == "optimizer":
        return f"Write number {seed_of(prompt, request.sample) % 100_000} of them."
    if isinstance(request, Score):
        return keyword_script(request, prompt)
    right = next((colour for colour in COLOURS if f"is {colour}" in prompt), "")
    return right if right == "red" or "Write number" in prompt or f"Hint: {right}" in prompt else "grey"


# ── GEPA ─────────────────────────────────────────────────────────────────────────────────────────


def gated(request: Request, prompt: str) -> Answer:
    """Chooses rightly only when told to look; of what it writes for an optimizer every second text tells so."""
    if isinstance(request, Generate):
        return "Look at the last word." if request.sample % 2 else "Think about the sea."
    assert isinstance(request, Score)
    sign = 1 if "Look at the last word." in prompt else -1
    last = prompt.split("Text:")[-1]
    return [sign * float(f"is {word.strip()}" in last) for word in request.continuations]


def test_only_what_does_better_on_the_same_rows_is_proposed() -> None:
    table = [({}, [0.0] * 6)]
    proposals = [
        proposal
        for seed in range(4)
        for proposal in proposed(GEPAProposer(), raced(closed_program(), table), gated, seed)
    ]
    assert proposals
    assert {proposal.edits[NAME] for proposal in proposals} == {"Look at the last word."}


def test_rows_without_a_mistake_teach_nothing() -> None:
    told = closed_program().replace({NAME: "Look at the last word."})
    scribe = Scribe(gated)
    assert proposed(GEPAProposer(), raced(told, [({}, [1.0] * 6)]), scribe) == []
    assert scribe.asked == []


def test_reflection_shows_the_mistakes_of_the_parent_and_its_instruction() -> None:
    scribe = Scribe(gated)
    proposed(GEPAProposer(), raced(closed_program(), [({}, [0.0] * 6)]), scribe)
    assert len(scribe.asked) == 9, "three mutations of three rewrites"
    for asked in scribe.asked:
        assert asked.count("Feedback: The answer was") == 8
        assert "Its instruction was: Name the colour.\n" in asked
    shown = {line for asked in scribe.asked[::3] for line in asked.split("\n") if line.startswith("Text: ")}
    assert len(shown) == 24, "every mutation has rows of its own"


def test_parents_are_drawn_from_those_that_are_best_at_something() -> None:
    table = [
        ({}, [0.0, 1.0, 0.0, 0.0]),
        ({NAME: TEXTS[0]}, [1.0, 1.0, 1.0, 0.0]),
        ({NAME: TEXTS[1]}, [0.0, 0.0, 0.0, 1.0]),
    ]
    scribe = Scribe(gated)
    for seed in range(8):
        proposed(GEPAProposer(), raced(closed_program(), table), scribe, seed)
    used = Counter(asked.split("Its instruction was: ")[1].split("\n")[0] for asked in scribe.asked)
    assert set(used) == {TEXTS[0], TEXTS[1]}, "the program as given is dominated"
    assert used[TEXTS[0]] > used[TEXTS[1]]


def test_texts_take_turns_within_a_round_and_from_round_to_round() -> None:
    seen = []
    for round in (1, 2):
        scribe = Scribe(better_when_told)
        history = raced(open_program(), [({}, [0.0] * 4)], round=round)
        proposed(GEPAProposer(), history, scribe)
        asked = [text.split("Its instruction was: ")[1].split("\n")[0] for text in scribe.asked]
        seen.append(Counter(asked))
    hint, colour = "Give a hint.", "Name the colour."
    assert seen == [Counter({hint: 6, colour: 3}), Counter({hint: 3, colour: 6})]


def test_a_mutation_that_the_allowance_does_not_pay_for_is_not_begun() -> None:
    table = [({}, [0.0, 0.0]), ({NAME: TEXTS[0]}, [1.0, 0.0]), ({"colour.style": "plain"}, [0.0, 1.0])]
    scribe = Scribe(gated)
    (merge,) = proposed(GEPAProposer(), raced(closed_program(), table, allowance_calls=20), scribe)
    assert scribe.asked == []
    assert merge.note.startswith("merge of 1 with colour.style of 2")


# ── merging ──────────────────────────────────────────────────────────────────────────────────────


def test_what_two_candidates_have_learnt_is_merged_whatever_it_is() -> None:
    program = open_program()
    demo = {"inputs": {"text": "t", "hint": "h"}, "outputs": {"colour": "red"}}
    one = {"hint.instruction": "Hint at it.", "colour.style": "plain"}
    other = {"colour.demos": program.parameters["colour.demos"].check([demo]), "colour.max_tokens": 9}
    history = raced(program, [({}, [0.0, 0.0]), (one, [1.0, 0.0]), (other, [0.0, 1.0])])
    (merge,) = merges(history, history.candidates)
    assert merge.parent is history.candidates[1]
    whole = merge.parent.program.replace(merge.edits)
    assert {name: whole.parameters[name].value for name in {**one, **other}} == {**one, **other}


VALUES: dict[str, tuple[Any, ...]] = {
    "hint.instruction": ("Give a hint.", "Hint at it.", "Say more."),
    "hint.style": ("chat", "plain"),
    "colour.instruction": ("Name the colour.", "Say it.", "Look."),
    "colour.max_tokens": (8, 9, 10),
}
assignments = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()})


@given(assignments, assignments, st.booleans())
def test_a_merge_takes_each_weight_as_its_rule_says(one: dict[str, Any], two: dict[str, Any], first: bool) -> None:
    program = open_program()
    was = {name: values[0] for name, values in VALUES.items()}
    scores = ([1.0, 1.0], [1.0, 0.0]) if first else ([1.0, 0.0], [1.0, 1.0])
    history = raced(program, [({}, [0.0, 0.0]), (one, scores[0]), (two, scores[1])])
    best = one if first else two
    expected = {}
    for name in VALUES:
        if was[name] in (one[name], two[name]):
            expected[name] = two[name] if one[name] == was[name] else one[name]
        else:
            expected[name] = best[name]
    found = merges(history, history.candidates[1:])
    if expected in (was, one, two):
        assert found == []
    else:
        (merge,) = found
        assert merge.parent is history.candidates[1 if first else 2]
        whole = merge.parent.program.replace(merge.edits)
        assert {name: whole.parameters[name].value for name in VALUES} == expected


def test_candidates_are_merged_over_their_nearest_common_ancestor() -> None:
    program = open_program()
    base = candidate(1, program, [0.5, 0.0], 0, {"hint.instruction": "Hint at it."})
    left = candidate(2, base.program, [1.0, 0.0], 1, {"colour.instruction": "Say it."})
    right = candidate(3, base.program, [0.5, 1.0], 1, {"colour.style": "plain"})
    first = candidate(0, program, [0.0, 0.0])
    history = history_of(program, rows(3), traces=first.traces, others=[base, left, right])
    assert merged(history, right, left) == {"colour.instruction": "Say it."}
    assert merged(history, left, base) == {}, "one comes from the other"
    assert merged(history, base, history.candidates[0]) == {}
    (merge,) = merges(history, [left, right])
    done = candidate(4, right.program, [0.0, 0.0], 3, merge.edits)
    again = history_of(program, rows(3), traces=first.traces, others=[base, left, right, done])
    assert merges(again, [left, right]) == [], "the run has had it"


def test_candidates_worse_than_their_ancestor_are_not_merged() -> None:
    table = [({}, [1.0, 0.5]), ({NAME: TEXTS[0]}, [1.0, 1.0]), ({"colour.style": "plain"}, [0.0, 1.0])]
    history = raced(closed_program(), table)
    assert merges(history, history.candidates) == []


def test_a_bias_is_merged_where_the_run_does_not_fit_biases() -> None:
    bias = (1.0, 0.0, -1.0)
    table = [({}, [0.0, 0.0]), ({NAME: TEXTS[0]}, [1.0, 0.0]), ({"colour.bias": bias}, [0.0, 1.0])]
    by_hand = raced(closed_program(), table, calibrates=False)
    assert [merge.edits for merge in merges(by_hand, by_hand.candidates)] == [{"colour.bias": bias}]
    fitted = raced(closed_program(), table)
    assert merges(fitted, fitted.candidates) == [], "it would be fitted anew, so nothing is left to merge"


# ── the real model ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.model
def test_a_small_model_writes_texts_that_can_be_proposed() -> None:
    program = closed_program()
    written = []
    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        first = Candidate(0, program, candidate(0, program, [0.0, 1.0]).traces)
        other = candidate(1, program, [1.0, 0.0], 0, {NAME: "Say which colour the thing has."})
        history = history_of(program, rows(12), traces=first.traces, others=[other], allowance_calls=60)
        for proposer in make_proposers(("evoprompt_ga", "evoprompt_de", "gepa", "expel")):
            for proposal in runtime.run(proposer.propose(history, default_rng(0))):
                parent = (proposal.parent or history.incumbent).program
                assert parent.replace(proposal.edits).fingerprint != parent.fingerprint
                written.append(proposer.name)
    assert {"evoprompt_ga", "evoprompt_de"} <= set(written)
