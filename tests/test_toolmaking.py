"""Functions that a model writes: shape, what solves rows is kept, what is hostile is rejected by running it."""

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng
from support_optim import EXACT, bad_completions, history_of

from engine import Input, Program, open_runtime
from engine.errors import ContentError
from engine.feedback.packing import Part
from engine.inference.runtime import Runtime
from engine.inference.scripted import Answer, ScriptedBackend
from engine.inference.usage import Usage
from engine.optim.budgeting import Meter
from engine.optim.history import Candidate, History, Proposal, Proposer
from engine.optim.loop import Setting, optimize
from engine.optim.proposers.agent_optimizer import AgentOptimizerProposer
from engine.optim.proposers.craft import CraftProposer
from engine.optim.tooling.coding import abstraction, coded, is_function, normalized, revision, solution, tool
from engine.optim.tooling.toolmaking import Gave, code_in, different
from engine.program.layers import Agent, Code, Predict, Vote
from engine.program.tools.written import parsed
from engine.program.typed.grammar import matches
from engine.records import Example, Generate, Request, Score
from engine.sandbox.service import SandboxService
from engine.store.rows import CandidateRow
from engine.store.store import Store
from engine.tasks.budget import Budget

TEXTS = ("a b", "one two three", "x", "p q r s", "to be or not", "yes no", "l m n o p", "why", "go on", "red hot tea")
WORDS = [Example(f"w{n}", {"text": text}, (str(len(text.split())),)) for n, text in enumerate(TEXTS)]
SUMS = [Example(f"s{n}", {"question": f"What is {n} plus {n + 2}?"}, (str(2 * n + 2),)) for n in range(10)]
TOTAL = 'def total(values: list[int]) -> int:\n    """Add numbers."""\n    return len(values)'
RIGHT = "    words = text.split()\n    return len(words)\n```"
GENERAL = 'count_words(passage: str):\n    """Count the words of a passage."""\n    return len(passage.split())'


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file and a variable that nothing may touch, and the folder they are in."""
    (tmp_path / "canary.txt").write_text("secret")
    os.environ["LOCALGRAD_CANARY"] = "secret"
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["canary.txt"]
    assert (tmp_path / "canary.txt").read_text() == "secret"
    assert os.environ.pop("LOCALGRAD_CANARY") == "secret"


def counting() -> Program:
    """A script that counts characters, where words should be counted."""
    return Program(Code("len(text)", output="result", seconds=0.2)(Input("text")))


def adding() -> Program:
    """An agent with a function that is wrong."""
    return Program(Agent(source=TOTAL, steps=3)(Input("question")))


PROGRAMS: dict[str, tuple[Callable[[], Program], list[Example]]] = {"code": (counting, WORDS), "agent": (adding, SUMS)}


def writes(*codes: str, general: str = "", choose: str = "add") -> Callable[[Request, str], Answer]:
    """A model that writes these functions in turn, and `general` where one is to be generalized."""

    def script(request: Request, prompt: str) -> Answer:
        if isinstance(request, Score):
            return [0.0 if choose in option else -50.0 for option in request.continuations]
        assert isinstance(request, Generate)
        if request.role == "optimizer":
            last = prompt.rpartition("<user>")[2]
            return general if "again so that it works" in last else codes[request.sample % len(codes)]
        last = prompt.rpartition("<user>")[2]
        if "call" in prompt.casefold() and "Action" not in (request.grammar or ""):
            first = int(last.split("What is ")[1].split()[0])
            name = next(name for name in ("add_up", "total", "spy", "finish") if f'"{name}' in (request.grammar or ""))
            return f'{{"name": "{name}", "arguments": {{"values": [{first}, {first + 2}]}}}}'
        return ' I do not know.\nAction: {"name": "finish", "arguments": {"answer": "?"}}'

    return script


class Silent:
    """Watches nothing."""

    def phase(self, round: int, name: str, dev_score: float) -> None: ...

    def progress(self, usage: Usage, open_requests: int, meter: Meter) -> None: ...

    def candidate(self, row: CandidateRow) -> None: ...


def history(kind: str, *, others: list[Candidate] | None = None, allowance_calls: int = 300) -> History:
    program, rows = PROGRAMS[kind]
    return history_of(program(), rows, others=others or [], allowance_calls=allowance_calls)


def proposed(
    proposer: Proposer, run: History, script: Callable[[Request, str], Answer], seed: int = 0
) -> list[Proposal]:
    """What a proposer proposes when a script answers and the sandbox is real."""
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:"), {"sandbox": SandboxService(Path())}) as runtime:
        found = runtime.run(proposer.propose(run, default_rng(seed)))
        assert runtime.usage.calls <= run.allowance_calls
    for proposal in found:
        parent = run.program
        assert parent.replace(proposal.edits).fingerprint != parent.fingerprint
        assert proposal.note
    return found


def score(program: Program, rows: list[Example], script: Callable[[Request, str], Answer]) -> float:
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:"), {"sandbox": SandboxService(Path())}) as runtime:
        return EXACT.mean(runtime.run(EXACT.run(program, rows)))


# ── CRAFT ────────────────────────────────────────────────────────────────────────────────────────


def test_craft_keeps_the_general_form_of_what_solves_rows_it_was_not_made_from() -> None:
    script = writes(RIGHT, "    return 'five'", general=GENERAL)
    found = proposed(CraftProposer(), history("code"), script)
    assert [list(one.edits.values()) for one in found] == [[f"def {GENERAL}\n\n\ncount_words(text)"]], (
        "one of four equal functions"
    )
    assert found[0].note == "result.source: count_words (right on 100% of other rows)"
    assert score(counting().replace(found[0].edits), WORDS, script) == 1.0


def test_craft_keeps_the_first_form_where_the_general_one_solves_less() -> None:
    wrong = GENERAL.replace("len(passage.split())", "len(passage)")
    for general in (wrong, "count_words(", wrong.replace("len(passage)", "nobody(passage)")):
        found = proposed(CraftProposer(), history("code"), writes(RIGHT, general=general))
        assert [one.edits["result.source"] for one in found] == [
            "def solve(text: str):\n    words = text.split()\n    return len(words)\n\n\nsolve(text)"
        ]


def test_craft_drops_what_was_learnt_by_heart() -> None:
    def reciting(request: Request, prompt: str) -> Answer:
        """A function that knows the rows of its prompt and no others."""
        shown = re.findall(r"text: (.*)\nresult: (.*)\n", prompt.rpartition("<user>")[2])
        return f"    known = {dict(shown)!r}\n    return known.get(text, '0')"

    assert proposed(CraftProposer(), history("code"), reciting) == []


HOSTILE = {
    "files": '    import os\n    os.remove("{folder}/canary.txt")\n    return str(len(text.split()))',
    "writes": '    open("{folder}/new", "w").write("x")\n    return str(len(text.split()))',
    "environment": '    import os\n    return os.environ["LOCALGRAD_CANARY"]',
    "reads": '    return open("{folder}/canary.txt").read()',
    "endless": "    while True:\n        pass\n    return text",
    "memory": "    return [0] * 10 ** 10",
    "recursion": "    return solve(text)",
    "exit": "    raise SystemExit\n    return text",
    "eval": "    return eval(\"__import__('os').getcwd()\")",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_rejected_by_running_it_and_touches_nothing(outside: Path, name: str) -> None:
    code = HOSTILE[name].replace("{folder}", str(outside))
    start = time.perf_counter()
    assert proposed(CraftProposer(), history("code"), writes(code, general="")) == []
    assert proposed(AgentOptimizerProposer(), history("code"), writes(code)) == []
    assert time.perf_counter() - start < 30


def test_craft_gives_an_agent_tools_that_solve_rows_when_they_are_called() -> None:
    first = 'add_up(values: list[int]):\n    """Add all numbers."""\n    return sum(values)'
    second = 'total(values: list[int]):\n    """Count."""\n    return sum(values)'
    taken = first.replace("add_up", "finish")
    found = proposed(CraftProposer(), history("agent"), writes(first, general=""))
    assert [one.edits["answer.source"] for one in found] == [f"{TOTAL}\n\n\ndef {first}"]
    assert proposed(CraftProposer(), history("agent"), writes(second, taken, general="")) == [], "names that are taken"
    assert proposed(CraftProposer(), history("agent"), writes(first.replace("sum", "max"), general="")) == []


def test_functions_that_are_alike_or_do_alike_count_once() -> None:
    def gave(*texts: str) -> list[Gave]:
        return [Gave(text, 1.0, None if text else "failed") for text in texts]

    one, renamed, other = (
        "def f(a): return a + 1",
        "def g(b: int):\n    '''Add.'''\n    return b + 1",
        "def f(a): return 1 + a",
    )
    assert normalized(one) == normalized(renamed) != normalized(other)
    place = code_in(counting())[0]
    (known,) = code_in(counting().replace({"result.source": f"{renamed}\ng(1)"}))
    assert list(different(place, {one: gave("1"), renamed: gave("2")})) == [one], "the same code"
    assert list(different(place, {one: gave("1"), other: gave("1")})) == [one], "the same results"
    assert list(different(place, {one: gave("1"), other: gave("2")})) == [one, other]
    assert list(different(known, {one: gave("1"), other: gave("2")})) == [other], "it is there already"
    assert list(different(place, {one: gave("", ""), other: gave("", "")})) == [one, other], (
        "failing alike says nothing"
    )


def test_a_run_accepts_a_function_that_wins_and_keeps_it() -> None:
    rows = [Example(f"r{n}", {"text": "a b " * n + "c"}, (str(2 * n + 1),)) for n in range(40)]
    script = writes(RIGHT, general=GENERAL)
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:"), {"sandbox": SandboxService(Path())}) as runtime:
        setting = Setting("run", counting(), rows[:20], rows[20:], EXACT, [CraftProposer()], seed=0)
        outcome = optimize(setting, runtime, Meter(Budget.parse("200calls"), runtime.usage), Silent())
    assert outcome.best.parameters["result.source"].value == f"def {GENERAL}\n\n\ncount_words(text)"
    assert EXACT.mean(outcome.best_dev) == 1.0
    assert outcome.ended == "dev is solved"


# ── AgentOptimizer ───────────────────────────────────────────────────────────────────────────────


def test_a_function_is_added_to_a_script_which_then_ends_with_its_call() -> None:
    found = proposed(AgentOptimizerProposer(), history("code"), writes("    return nobody", RIGHT, "    return text"))
    assert [one.edits["result.source"].splitlines()[-1] for one in found] == ["solve(text)"] * 2
    assert "len(words)" in found[0].edits["result.source"], "what solves most failures comes first"
    assert found[0].note == "result.source: solve added"


def test_a_function_is_revised_in_its_place_and_tried_where_it_stands() -> None:
    better = "    return sum(values)"
    found = proposed(AgentOptimizerProposer(), history("agent"), writes(better, "    return nobody", choose="revise"))
    assert [one.edits["answer.source"] for one in found] == [
        "def total(values: list[int]) -> int:\n    return sum(values)"
    ]
    assert found[0].note == "answer.source: total revised"


def test_a_function_is_removed_only_where_another_is_left() -> None:
    two = f"{TOTAL}\n\n\ndef spare(text: str):\n    return text"
    run = history_of(Program(Agent(source=two, steps=3)(Input("question"))), SUMS)
    script = writes("", choose="total")
    asked: list[tuple[str, ...]] = []

    def choosing(request: Request, prompt: str) -> Answer:
        if isinstance(request, Score):
            asked.append(request.continuations)
            return [0.0 if option in ("remove", "total") else -50.0 for option in request.continuations]
        return script(request, prompt)

    found = proposed(AgentOptimizerProposer(), run, choosing)
    assert [dict(one.edits) for one in found] == [{"answer.source": "def spare(text: str):\n    return text"}]
    assert asked == [("add", "revise", "remove"), ("total", "spare")]
    proposed(AgentOptimizerProposer(), history("agent"), choosing)
    assert asked[2:] == [("add", "revise")]


def test_what_was_tried_without_success_is_told_and_failures_are_shown() -> None:
    seen: list[str] = []
    script = writes(RIGHT)

    def spying(request: Request, prompt: str) -> Answer:
        if request.role == "optimizer":
            seen.append(prompt)
        return script(request, prompt)

    edit = {"result.source": "len(text) + 1"}
    failed = Candidate(1, counting().replace(edit), (), 1, "agent_optimizer", "result.source: solve added", 0, edit)
    proposed(AgentOptimizerProposer(), history("code", others=[failed]), spying)
    assert "Tried before without success: result.source: solve added." in seen[0]
    assert "result: 2\nThe program gave: 3" in seen[0]
    assert "len(text)" in seen[0]


def test_nothing_is_proposed_where_nothing_failed() -> None:
    right = Program(Code("len(text.split())", output="result")(Input("text")))
    for proposer in (CraftProposer(), AgentOptimizerProposer()):
        assert proposed(proposer, history_of(right, WORDS), writes(RIGHT, general="")) == []


# ── both ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", PROGRAMS)
@pytest.mark.parametrize("proposer", [CraftProposer(), AgentOptimizerProposer()], ids=lambda one: one.name)
def test_the_same_seed_gives_the_same_whatever_the_allowance_or_the_answers(proposer: Proposer, kind: str) -> None:
    right = RIGHT if kind == "code" else 'add_up(values: list[int]):\n    """Add."""\n    return sum(values)'
    for allowance in (300, 60):
        run = history(kind, allowance_calls=allowance)
        first = proposed(proposer, run, writes(right, general=""), seed=3)
        assert proposed(proposer, run, writes(right, general=""), seed=3) == first
    waiting = bad_completions(200)

    def useless(request: Request, prompt: str) -> Answer:
        if isinstance(request, Score):
            return [float(len(option)) for option in request.continuations]
        return waiting.pop() if waiting else ""

    for seed in range(30):
        before = len(waiting)
        proposed(proposer, history(kind, allowance_calls=80), useless, seed)
        if not waiting or len(waiting) == before:
            break


def test_code_is_found_wherever_it_stands_and_programs_without_it_do_not_suit() -> None:
    text = Input("text")
    branches = {"long": Code("len(text)"), "short": Code("1")}
    inner = Vote(branches=branches)
    assert [(one.name, one.reads) for one in code_in(Program(inner(text)))] == [
        (f"result.branches.{name}.source", ("text",)) for name in branches
    ]
    (agent,) = code_in(Program(Agent(("tools.py:add",), source=TOTAL)(text)))
    assert (agent.name, agent.taken) == ("answer.source", ("add", "finish", "search"))
    without = Program(Predict("Say it.")(text))
    assert not any(proposer.suits(without) for proposer in (CraftProposer(), AgentOptimizerProposer()))


FORMS: dict[str, Any] = {
    "solution": solution([Part("text: a\nresult: b")], ("text", "other")),
    "tool": tool([Part("text: a\nresult: b")]),
    "abstraction": abstraction("def f(a: str):\n    return a", 2, texts=True),
    "revision": revision([], TOTAL),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_opens_a_function_and_its_shown_answer_keeps_to_its_pattern(name: str) -> None:
    form = FORMS[name]
    body = "    if x:\n        y = 1\n    return y\n```"
    starts = {"solution": "", "revision": "", "tool": 'add(left: int):\n    """Adds one thing."""\n'}
    start = starts.get(name, 'add(left: str, right: str):\n    """Adds one thing."""\n')
    assert matches(form.pattern(form.chars), start + body)
    assert is_function(f"{form.lead}{start}{body}".removeprefix("```python\n").removesuffix("\n```"))
    for wrong in (
        body[4:],
        f"{start}    # a comment\n{body}",
        f"{start}    y = 1",
        f"{start}return 1",
        start + body + "x",
    ):
        assert not matches(form.pattern(form.chars), wrong)


@given(st.text(max_size=200))
def test_any_text_is_a_function_or_not_and_one_is_like_itself(text: str) -> None:
    code = f"def f(a):\n    return {text}"
    if is_function(code):
        assert normalized(code) == normalized(code.replace("def f(", "def g("))


@pytest.mark.parametrize(
    "deep", ["-" * 1900 + "1", "not " * 400 + "a", "1+" * 900 + "1", "(" * 300 + ")" * 300, "a" + "()" * 900]
)
def test_code_nested_however_deeply_is_looked_at_or_refused(deep: str) -> None:
    code = f"def f(a):\n    return {deep}"
    if is_function(code):
        assert normalized(code)
    with pytest.raises(ContentError, match="no Python"):
        parsed(code.replace(deep, "(" * 300))


@pytest.mark.model
def test_the_real_model_writes_functions_that_can_be_proposed() -> None:
    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        run = history("code", allowance_calls=60)
        codes = [runtime.run(coded(run, form, 2, default_rng(0))) for form in (FORMS["solution"], FORMS["tool"])]
        assert all(is_function(code) for several in codes for code in several)
        assert any(codes)
        for proposer, program, rows in (
            (CraftProposer(), counting(), WORDS),
            (AgentOptimizerProposer(), adding(), SUMS),
        ):
            few = history_of(program, rows[:3], allowance_calls=60)
            for proposal in runtime.run(proposer.propose(few, default_rng(0))):
                assert program.replace(proposal.edits).fingerprint != program.fingerprint
