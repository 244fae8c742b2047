"""APE, Self-Discover, ProTeGi and OPRO: what they ask in which order, whom they edit, and what they propose."""

import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from numpy.random import default_rng
from support_evolution import candidate
from support_optim import COLOURS, EXACT, closed_program, history_of, open_program, proposed, rows, runtime_of

from engine import open_runtime
from engine.inference.scripted import Answer
from engine.optim.history import Candidate, History, Proposal
from engine.optim.proposers import make_proposers
from engine.optim.proposers.ape import APEProposer
from engine.optim.proposers.opro import OPROProposer
from engine.optim.proposers.protegi import ProTeGiProposer
from engine.optim.proposers.self_discover import SelfDiscoverProposer
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict
from engine.program.library import architecture
from engine.records import Example, Generate, Plain, Request, Score
from engine.store.keys import seed_of

NAME = "colour.instruction"
WORDS = ("ape", "self_discover", "protegi", "opro")


class Model:
    """A model whose choices are the better the higher the number in the instruction; keeps what it was asked.

    For an optimizer it writes what `writes` says, from the request's text and the number of the request so far.
    """

    def __init__(self, writes: Callable[[str, int], str]) -> None:
        self.asked: list[str] = []
        self.seen: list[str] = []
        self._writes = writes

    def __call__(self, request: Request, prompt: str) -> Answer:
        if isinstance(request, Generate) and request.role == "optimizer":
            assert isinstance(request.prompt, Plain)
            self.asked.append(prompt.split("\n\n", 1)[1])
            return self._writes(prompt, len(self.asked))
        self.seen.append(prompt)
        if isinstance(request, Generate):
            return "red"
        assert isinstance(request, Score)
        found = re.search(r"number (\d+)", prompt)
        right = prompt.rstrip().split("\n")[-2].split()[-1]
        return [(int(found[1]) - 100 if found else 0) / 10 * (word == right) for word in request.continuations]

    def last(self, kind: str) -> list[str]:
        """The last blocks, without the worked tasks, of the requests that end so."""
        return [text.split("\n\n")[-1] for text in self.asked if text.endswith(kind)]


def counting(prompt: str, count: int) -> str:
    return f"Say number {100 + count}."  # numbers that no example has


def labelled(lines: str) -> list[str]:
    return re.findall(r"train thing \d+", lines)


# ── APE ──────────────────────────────────────────────────────────────────────────────────────────


def test_ape_induces_from_pairs_and_varies_the_best_of_them() -> None:
    model = Model(counting)
    history = history_of(closed_program(), rows(60), calibrates=False, allowance_calls=400)
    found = proposed(APEProposer(), history, model)
    induced = [block for block in model.last("Instruction:") if "->" in block]
    varied = model.last("In other words:")
    assert len(induced) == 9
    assert all("Possible answers: blue, green, red\n" in block for block in induced)
    assert all(re.fullmatch(r"Text: train thing \d+ is (\w+) -> Colour: \1", block.split("\n")[0]) for block in induced)
    best = {f"Instruction: Say number {n}." for n in (106, 107, 108, 109)}
    assert {block.split("\n")[0] for block in varied} == best, "the four that make the right answers likeliest"
    assert len(varied) == 8
    assert [proposal.edits[NAME] for proposal in found] == [f"Say number {n}." for n in (117, 116, 115, 114)]
    assert all(proposal.parent is None for proposal in found)


def test_ape_measures_on_rows_that_no_prompt_shows_and_executes_nothing_else() -> None:
    model = Model(counting)
    proposed(APEProposer(), history_of(closed_program(), rows(60), calibrates=False), model)
    shown = {thing for block in model.asked for thing in labelled(block)}
    measured = {thing for prompt in model.seen for thing in labelled(prompt)}
    assert shown
    assert measured
    assert not shown & measured


def test_ape_varies_the_best_of_earlier_plays_too() -> None:
    first = candidate(0, closed_program(), [1, 0, 0])
    earlier = [
        Candidate(n, one.program, one.traces, 1, proposer, edits=one.edits)
        for n, (text, scores, proposer) in enumerate(
            [("Worst.", [0, 0, 0], "ape"), ("Good.", [1, 1, 0], "ape"), ("Better.", [1, 1, 1], "opro")], 1
        )
        for one in [candidate(n, closed_program(), scores, 0, {NAME: text})]
    ]
    history = history_of(closed_program(), rows(60), traces=first.traces, others=earlier, calibrates=False)
    model = Model(counting)
    proposed(APEProposer(), history, model)
    varied = [block.split("\n")[0] for block in model.last("In other words:")]
    assert {"Instruction: Good.", "Instruction: Worst."} <= set(varied)
    assert "Instruction: Better." not in varied, "it is another proposer's"


def test_ape_learns_from_right_executions_where_a_node_stands_before_others() -> None:
    model = Model(counting)
    program = Program(
        Predict("Name the colour.", output="colour")(
            Input("text"), Predict("Give a hint.", output="hint")(Input("text"))
        )
    )
    history = history_of(program, rows(60), allowance_calls=800)
    names = set()
    for seed in range(6):
        names |= {name for proposal in proposed(APEProposer(), history, model, seed) for name in proposal.edits}
    assert names == {"hint.instruction", NAME}
    pairs = [line for block in model.asked for line in block.split("\n\n")[-1].split("\n") if "train" in line]
    assert {line.split(" -> ")[1] for line in pairs} == {"Hint: red", "Colour: red"}
    assert all(" is red" in line for line in pairs), "red is what is written, and right only there"


# ── OPRO ─────────────────────────────────────────────────────────────────────────────────────────


def test_opro_shows_scores_from_the_worst_to_the_best_and_asks_for_more() -> None:
    first = candidate(0, closed_program(), [1, 0, 0, 0])
    others = [
        candidate(n, closed_program(), scores, 0, {NAME: text})
        for n, (text, scores) in enumerate([("Best.", [1, 1, 1, 0]), ("Worst.", [0, 0, 0, 0])], 1)
    ]
    history = history_of(closed_program(), rows(20), traces=first.traces, others=others)
    model = Model(counting)
    found = proposed(OPROProposer(), history, model)
    assert len(model.asked) == 8
    prompt = model.asked[0].split("Instruction: Name the country where the city lies. Answer with the name alone.\n\n")[
        1
    ]
    lines = prompt.split("\n")
    assert all(re.fullmatch(r"Text: train thing \d+ is (\w+) -> Colour: \1", line) for line in lines[:3])
    assert "\n".join(lines[3:]) == (
        "\nScore: 0\nInstruction: Worst.\n\nScore: 25\nInstruction: Name the colour.\n"
        "\nScore: 75\nInstruction: Best.\n\nScore: 82\nInstruction:"
    )
    assert [proposal.edits for proposal in found] == [{NAME: f"Say number {n}."} for n in range(101, 109)]


def test_opro_leaves_out_the_worst_where_there_is_no_room_and_proposes_nothing_tried() -> None:
    first = candidate(0, closed_program(), [0] * 30)
    others = [
        candidate(n, closed_program(), [1] * n + [0] * (30 - n), 0, {NAME: f"Say number {n}."}) for n in range(1, 30)
    ]
    history = history_of(closed_program(), rows(20), traces=first.traces, others=others, room_tokens=360)
    model = Model(lambda prompt, count: "Say number 3." if count % 2 else "Say it.")
    found = proposed(OPROProposer(), history, model)
    shown = re.findall(r"Say number (\d+)", model.asked[0])
    assert 1 < len(shown) < 20
    assert shown == [str(n) for n in range(30 - len(shown), 30)]
    assert [proposal.edits[NAME] for proposal in found] == ["Say it."]


# ── ProTeGi ──────────────────────────────────────────────────────────────────────────────────────


def critic(prompt: str, count: int) -> str:
    if prompt.endswith("Reason:"):
        return f"The instruction does not name number {count}."
    return f"Say number {100 + count}."


def beam_history(allowance: int = 600) -> History:
    """An incumbent, one that is better on dev but was not accepted, one that is worse, and one that did not race."""
    table = [([1, 0, 0], "Better."), ([0, 0, 0], "Worse."), ([], "Not raced.")]
    others = [candidate(n, closed_program(), scores, 0, {NAME: text}) for n, (scores, text) in enumerate(table, 1)]
    first = candidate(0, closed_program(), [0, 1, 0])
    settings = {"traces": first.traces, "others": others, "calibrates": False, "allowance_calls": allowance}
    return history_of(closed_program(), rows(80), **settings)  # type: ignore[arg-type]


def test_protegi_edits_each_member_of_the_beam_along_its_gradients() -> None:
    model = Model(critic)
    history = beam_history()
    found = proposed(ProTeGiProposer(), history, model)
    reasons, edits = model.last("Reason:"), model.last("Better instruction:")
    owners = ["Name the colour.", "Better.", "Worse."]
    assert {block.split("\n")[0] for block in reasons} == {f"Instruction: {text}" for text in owners}
    mistakes = [line for block in reasons for line in block.split("\n")[1:-1]]
    assert all(re.fullmatch(r"Text: train .* is (\w+) -> Colour: blue \(right: \1\)", line) for line in mistakes)
    assert not any("is blue" in line for line in mistakes), "those were right"
    told = Counter(re.findall(r"Problem: (.*)", "\n".join(edits)))
    assert set(told.values()) == {2}, "one more than is used"
    assert len(told) == len(owners) * 3
    assert all(reason.startswith("The instruction does not name number ") for reason in told)
    edited = {f"Say number {100 + n}." for n, text in enumerate(model.asked, 1) if text.endswith("Better instruction:")}
    varied = [block.split("\n")[0].removeprefix("Instruction: ") for block in model.last("In other words:")]
    assert len(varied) == len(told)
    assert set(varied) < edited, "one edit along each gradient is said again in other words"
    assert len(found) == 4
    assert {proposal.parent.number for proposal in found if proposal.parent} <= {0, 1, 2}
    ranks = [int(str(proposal.edits[NAME]).split()[-1].strip(".")) for proposal in found]
    assert ranks == sorted(ranks, reverse=True)
    assert all("because the instruction does not name number" in proposal.note for proposal in found)


def test_protegi_narrows_its_beam_to_the_allowance_with_the_incumbent_first() -> None:
    for allowance, owners in ((150, 1), (320, 2), (700, 3)):
        model = Model(critic)
        proposed(ProTeGiProposer(), beam_history(allowance), model)
        firsts = [block.split("\n")[0] for block in model.last("Reason:")]
        assert len(set(firsts)) == owners
        assert firsts[0] == "Instruction: Name the colour."


def test_protegi_has_nothing_to_say_where_nothing_failed() -> None:
    model = Model(critic)
    history = history_of(closed_program(), [row for row in rows(90) if row.accepted == ("blue",)])
    assert proposed(ProTeGiProposer(), history, model) == []
    assert model.asked == []


def test_protegi_shows_an_inner_node_its_own_work_and_the_answer_in_the_end() -> None:
    model = Model(critic)
    history = history_of(open_program(), rows(60), allowance_calls=600)
    for seed in range(6):
        proposed(ProTeGiProposer(), history, model, seed)
    hints = [block for block in model.last("Reason:") if "Give a hint." in block]
    assert hints
    line = r"Text: train thing \d+ is (\w+) -> Hint: red. In the end: red \(right: \1\)"
    assert all(re.fullmatch(line, found) for block in hints for found in block.split("\n")[1:-1])


# ── Self-Discover ────────────────────────────────────────────────────────────────────────────────

CHOSEN = ("Look for evidence in the text.", "Find the rule that applies.", "Check the answer.")
PLAN = "Read the text, number {}.\n2. Look for it.\n3. Say what it is."


def discoverer(request: Request, prompt: str) -> Answer:
    """Finds three kinds of reasoning likelier for a task than without one, and another one likely always."""
    if isinstance(request, Score):
        liked = ("Say what is asked for.", *(() if "N/A" in prompt else CHOSEN))
        return [
            0.0 if word.strip() == liked[0] else -2.0 if word.strip() in liked else -5.0
            for word in request.continuations
        ]
    assert isinstance(request, Generate)
    number = seed_of(prompt, request.sample) % 1000
    return PLAN.format(number) if prompt.endswith("Plan:\n1.") else f"Look at the end, number {number}."


def discovered(program: Program, **settings: object) -> tuple[list[Proposal], list[str]]:
    """What is proposed, and the ends of what the model was asked."""
    asked: list[str] = []

    def script(request: Request, prompt: str) -> Answer:
        asked.append(prompt.split("\n\n")[-1] if isinstance(request, Generate) else prompt)
        return discoverer(request, prompt)

    return proposed(SelfDiscoverProposer(), history_of(program, rows(20), **settings), script), asked  # type: ignore[arg-type]


def one_open_node(instruction: str = "Name the colour.") -> Program:
    return Program(Predict(instruction, output="colour")(Input("text")))


def test_self_discover_puts_a_plan_of_three_steps_behind_an_instruction() -> None:
    found, asked = discovered(one_open_node())
    texts = [str(proposal.edits[NAME]) for proposal in found]
    assert len(set(texts)) == 4
    form = r"Name the colour\.\nFollow these steps:\n1\. Read the text, number \d+\.\n2\. Look for it\.\n3\. Say .*\."
    assert all(re.fullmatch(form, text) for text in texts)
    adapted = [re.findall(r"General advice: (.*)", block)[0] for block in asked if block.endswith("this task:")]
    assert tuple(dict.fromkeys(adapted)) == CHOSEN, "what is likely without the task, too, says nothing of it"
    plans = [block for block in asked if block.endswith("Plan:\n1.")]
    assert len(set(plans)) == 4, "of different adaptations"
    assert all(block.count("Look at the end") == 3 for block in plans)
    assert len(asked) == 2 + 3 * 4 + 4


def test_self_discover_replaces_the_steps_of_an_earlier_play() -> None:
    (first, *_), _ = discovered(one_open_node())
    again, _ = discovered(one_open_node(str(first.edits[NAME])))
    assert again
    assert all(str(proposal.edits[NAME]).count("Follow these steps:") == 1 for proposal in again)
    assert str(first.edits[NAME]) not in [proposal.edits[NAME] for proposal in again]


def test_self_discover_is_for_what_is_written_openly() -> None:
    suits = SelfDiscoverProposer().suits
    assert not suits(closed_program())
    assert not suits(Program(Predict("Count.", output={"number": "int"})(Input("text"))))
    assert suits(Program(Predict("Count.", output={"why": "text", "number": "int"})(Input("text"))))
    reasoned = architecture("cot", ("text",), choices=COLOURS)
    assert suits(reasoned)
    found, _ = discovered(reasoned)
    assert {name for proposal in found for name in proposal.edits} == {"answer.steps.reason.instruction"}


def test_self_discover_drops_what_is_no_plan() -> None:
    def script(request: Request, prompt: str) -> Answer:
        return "Read it all." if prompt.endswith("Plan:\n1.") else discoverer(request, prompt)

    assert proposed(SelfDiscoverProposer(), history_of(one_open_node(), rows(20)), script) == []


# ── all of them ──────────────────────────────────────────────────────────────────────────────────


def runs() -> Iterator[Program]:
    """Programs of several calls an example, with texts in parts."""
    yield architecture("self_consistency", ("text",), n=3, choices=COLOURS)
    yield architecture("self_refine", ("text",), max_tokens=8)
    yield architecture("plan_and_solve", ("text",), max_tokens=8)


@pytest.mark.parametrize("name", WORDS)
def test_the_allowance_holds_for_programs_of_many_calls(name: str) -> None:
    (proposer,) = make_proposers((name,))
    for program in runs():
        for allowance in (40, 500):
            with runtime_of(guess) as runtime:
                traces = runtime.run(EXACT.run(program, rows(4, "dev")))
                history = history_of(program, rows(60), traces=traces, allowance_calls=allowance)
                before = runtime.usage.calls
                found = runtime.run(proposer.propose(history, default_rng(0)))
                assert runtime.usage.calls - before <= allowance
            assert all(program.replace(proposal.edits) != program for proposal in found)


def guess(request: Request, prompt: str) -> Answer:
    if isinstance(request, Score):
        return [seed_of(prompt, word) / 2**64 for word in request.continuations]
    assert isinstance(request, Generate)
    return f"Say number {seed_of(prompt, request.sample) % 1000}." if request.role == "optimizer" else "red"


@pytest.mark.parametrize("name", WORDS)
def test_dev_is_never_shown(name: str) -> None:
    (proposer,) = make_proposers((name,))
    program, prompts = open_program(), []

    def script(request: Request, prompt: str) -> Answer:
        prompts.append(prompt)
        return guess(request, prompt)

    with runtime_of(guess) as runtime:
        traces = runtime.run(EXACT.run(program, rows(6, "dev")))
    proposed(proposer, history_of(program, rows(40), traces=traces), script)
    assert prompts
    assert not any("dev thing" in prompt for prompt in prompts)


@pytest.mark.model
def test_a_very_small_model_writes_proposals_that_are_valid() -> None:
    pairs = [("hot", "cold"), ("big", "small"), ("open", "shut"), ("up", "down"), ("old", "young"), ("wet", "dry")] * 4
    train = [Example(f"{n}", {"word": word}, (other,)) for n, (word, other) in enumerate(pairs)]
    program = Program(Predict("Write the opposite of the word.", output="opposite", max_tokens=6)(Input("word")))
    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        traces = runtime.run(EXACT.run(program, train[:6]))
        history = history_of(program, train, traces=traces, allowance_calls=48, calibrates=False)
        for proposer in make_proposers(WORDS):
            found = runtime.run(proposer.propose(history, default_rng(1)))
            assert found, proposer.name
            for proposal in found:
                changed = program.replace(proposal.edits)
                assert changed != program
                assert str(proposal.edits["opposite.instruction"]).strip().endswith(".")
