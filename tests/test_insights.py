"""Insights: a list that is read back from an instruction as written, edited by votes, learnt from comparisons."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_evolution import Scribe
from support_optim import closed_program, history_of, proposed, rows

from engine.inference.scripted import Answer
from engine.optim.history import History
from engine.optim.proposers.expel import ExpeLProposer
from engine.optim.words.insights import MOST, Insight, Operation, edited, read, told
from engine.records import Chat, Generate, Request, Score

NAME = "colour.instruction"
HEADED = "Name the colour.\n\nRemember:\n1. Look at the last word. (3)\n2. Grey is no answer. (2)"
LISTED = (Insight("Look at the last word.", 3), Insight("Grey is no answer.", 2))

lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).map(str.strip).filter(bool)
tricky = st.sampled_from(["Remember:", "1. A rule. (2)", "2) b", "(3)", "A (2) (3)", "Remember: 1. a", "7."])
insight = st.builds(Insight, lines | tricky, st.integers(1, 50))
instructions = st.lists(lines | tricky | st.just(""), max_size=6).map(lambda text: "\n".join(text).rstrip())


@given(instructions, st.lists(insight, max_size=MOST))
def test_what_was_written_is_read_back(text: str, insights: list[Insight]) -> None:
    base, _ = read(text)
    if insights or not read(base)[1]:
        assert read(told(base, insights)) == (base, tuple(insights))


@given(st.text(st.sampled_from("Remember:\n1. (2)ab"), max_size=60))
def test_no_text_breaks_the_reading_and_nothing_of_it_is_lost(text: str) -> None:
    base, insights = read(text)
    assert text.startswith(base)
    assert all(one.text in text and one.text.strip() and "\n" not in one.text for one in insights)
    if not insights:
        assert base == text


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("7. Look at the last word. (3)\n7. Grey is no answer.", LISTED),
        ("\n1) Look at the last word. (3)  \n\n2.  Grey is no answer. (2)\n", LISTED),
        ("1. Look at the last word. (3)\nGrey is no answer.", ()),
        ("", ()),
    ],
)
def test_a_list_that_somebody_has_edited_is_still_read(behind: str, expected: tuple[Insight, ...]) -> None:
    text = f"Name the colour.\n\nRemember:\n{behind}"
    assert read(text) == (("Name the colour." if expected else text), expected)


def test_operations_change_the_list_as_they_should() -> None:
    operations = [
        Operation("ADD", text="Blue is rare."),
        Operation("EDIT", 1, "Grey is never right."),
        Operation("DOWNVOTE", 0),
        Operation("DOWNVOTE", 0),
    ]
    after = edited(LISTED, operations)
    assert after == (
        Insight("Grey is never right.", 3),
        Insight("Blue is rare.", 2),
        Insight("Look at the last word.", 1),
    )
    assert edited(after, [Operation("DOWNVOTE", 2)]) == after[:2], "at 0 an insight goes"
    assert edited(LISTED, [Operation("ADD", text="grey is no answer")])[1].importance == 3, "what is there is voted up"


kinds = st.sampled_from(["ADD", "EDIT", "UPVOTE", "DOWNVOTE"])


@given(
    st.lists(insight, min_size=1, max_size=MOST),
    st.lists(st.tuples(kinds, st.integers(0, MOST - 1), lines), max_size=12),
)
def test_a_list_stays_short_and_in_order_of_importance(insights: list[Insight], drawn: list[tuple]) -> None:  # type: ignore[type-arg]
    operations = [Operation(kind, place % len(insights), text) for kind, place, text in drawn]
    after = edited(insights, operations)
    assert len(after) <= MOST
    assert all(one.importance > 0 for one in after)
    assert [one.importance for one in after] == sorted((one.importance for one in after), reverse=True)
    known = {one.text for one in insights} | {operation.text for operation in operations}
    assert {one.text for one in after} <= known


# ── the proposer ─────────────────────────────────────────────────────────────────────────────────


def history(instruction: str, count: int = 24) -> History:
    program = closed_program().replace({NAME: instruction})
    return history_of(program, rows(count))


class Keeper(Scribe):
    """A model that is right about some colours alone, writes one rule, and has one operation in mind for every case."""

    def __init__(self, kind: str = "ADD", number: int = 1, knows: tuple[str, ...] = ("red", "blue")) -> None:
        self.kind, self.number, self.knows = kind, number, knows
        self.options: list[tuple[str, ...]] = []
        super().__init__(self._answer_to)

    def _answer_to(self, request: Request, prompt: str) -> Answer:
        if isinstance(request, Generate):
            return "Look at the very end."
        assert isinstance(request, Score)
        if request.role == "task":
            right = re.findall(r"is (\w+)", prompt)[-1]
            return [float((word.strip() == right) == (right in self.knows)) for word in request.continuations]
        assert isinstance(request.prompt, Chat)
        self.options.append(request.continuations)
        if "Text:" not in request.prompt.messages[-1].text:
            return [0.0] * len(request.continuations)
        return [99.0 * (word in (self.kind, f" {self.number}")) for word in request.continuations]


def test_an_empty_list_is_added_to_without_asking_what_to_do() -> None:
    keeper = Keeper()
    first, *_ = proposed(ExpeLProposer(), history("Name the colour."), keeper)
    assert keeper.options == []
    assert first.edits == {NAME: "Name the colour.\n\nRemember:\n1. Look at the very end. (7)"}
    assert first.note == "colour.instruction: " + "; ".join(["ADD Look at the very end."] * 6)


def test_a_failure_is_set_beside_what_was_right_and_right_ones_beside_each_other() -> None:
    keeper = Keeper()
    proposed(ExpeLProposer(), history("Name the colour."), keeper)
    pairs = [asked for asked in keeper.asked if "Wrong:" in asked]
    lists = [asked for asked in keeper.asked if "Wrong:" not in asked]
    assert (len(pairs), len(lists)) == (8, 4), "four pairs and two lists, two samples each"
    for asked in pairs:
        wrong, right = asked.split("Right:")
        assert 'but "green" is right.' in wrong
        assert "Feedback" not in right
    assert all(asked.count("Text: ") == 4 and "Feedback" not in asked for asked in lists)
    assert all(asked.startswith("Instruction: Name the colour.\n") for asked in keeper.asked)


def test_a_right_execution_with_the_same_answer_is_preferred() -> None:
    class Sometimes(Keeper):
        def _answer_to(self, request: Request, prompt: str) -> Answer:
            self.knows = ("blue", "red", "green") if "thing 4 " in prompt else ("blue", "red")
            return super()._answer_to(request, prompt)

    keeper = Sometimes()
    proposed(ExpeLProposer(), history("Name the colour."), keeper)
    pairs = [asked for asked in keeper.asked if "Wrong:" in asked]
    assert pairs
    assert all("thing 4 is green" in asked.split("Right:")[1] for asked in pairs)


def test_without_anything_right_failures_stand_alone_and_without_failures_only_lists_are_looked_at() -> None:
    none_right = Keeper(knows=())
    proposed(ExpeLProposer(), history("Name the colour."), none_right)
    assert none_right.asked
    assert not any("Right:" in asked for asked in none_right.asked)
    all_right = Keeper(knows=("red", "green", "blue"))
    proposed(ExpeLProposer(), history("Name the colour."), all_right)
    assert all_right.asked
    assert not any("Wrong:" in asked for asked in all_right.asked)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("UPVOTE", "1. Grey is no answer. (8)\n2. Look at the last word. (3)"),
        ("DOWNVOTE", "1. Look at the last word. (3)"),
        ("EDIT", "1. Look at the very end. (8)\n2. Look at the last word. (3)"),
    ],
)
def test_the_likelihoods_decide_what_is_done_with_which_insight(kind: str, expected: str) -> None:
    keeper = Keeper(kind, 2)
    first, *_ = proposed(ExpeLProposer(), history(HEADED), keeper)
    assert first.edits == {NAME: f"Name the colour.\n\nRemember:\n{expected}"}
    assert set(keeper.options) == {("ADD", "EDIT", "UPVOTE", "DOWNVOTE"), (" 1", " 2")}
    if kind == "EDIT":
        assert all("The rule was: Grey is no answer.\n" in asked for asked in keeper.asked)
    else:
        assert keeper.asked == [], "votes need no words"


def test_a_full_list_is_not_added_to() -> None:
    full = told("Name the colour.", [Insight(f"Rule {n} holds.", 9 - n) for n in range(MOST)])
    keeper = Keeper("DOWNVOTE", MOST)
    first, *_ = proposed(ExpeLProposer(), history(full), keeper)
    assert keeper.options[0] == ("EDIT", "UPVOTE", "DOWNVOTE")
    assert len(read(first.edits[NAME])[1]) == MOST - 1


def test_lists_from_failures_and_from_successes_are_proposed_beside_the_whole() -> None:
    class Both(Keeper):
        def _answer_to(self, request: Request, prompt: str) -> Answer:
            if isinstance(request, Generate):
                asked = request.prompt.messages[-1].text  # type: ignore[union-attr]
                return "Green is hard to see." if "Wrong:" in asked else "Red is easy to see."
            return super()._answer_to(request, prompt)

    found = proposed(ExpeLProposer(), history("Name the colour."), Both())
    lists = [[one.text for one in read(proposal.edits[NAME])[1]] for proposal in found]
    assert lists == [
        ["Green is hard to see.", "Red is easy to see."],
        ["Green is hard to see."],
        ["Red is easy to see."],
    ]
