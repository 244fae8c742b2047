"""Static analysis: every kind of finding where it belongs, and none where the same program is put right."""

from collections.abc import Mapping
from typing import Any, get_args

import pytest
from support_library import made
from support_static import COLOURS, LIMITS, found, part, predict, subject

from engine.feedback.static.analysis import analyse, findings
from engine.feedback.static.context import Limits
from engine.feedback.static.finding import Finding, Kind, OfProgram, OfTask, worst_first
from engine.feedback.static.subject import Subject
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend, keyword_script
from engine.program.graph import Program
from engine.program.library import ARCHITECTURES
from engine.records import Example
from engine.store.store import Store
from engine.tasks.metrics import METRICS, Metric

Nodes = Mapping[str, Any]
TEXTS = ("a fine day", "a long way", "a red car")
WORDS = "Rewrite the question in plain words so that a child understands what is meant by it and why"


def closed(**settings: Any) -> Nodes:
    """One node that chooses a colour."""
    return {"answer": predict(choices=list(COLOURS), **settings)}


def demos(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"inputs": {"question": question}, "outputs": {"answer": answer}} for question, answer in pairs]


def typed(kind: Any, **settings: Any) -> Nodes:
    return {"answer": predict(outputs={"answer": kind}, **settings)}


def two(first: Nodes, second: Nodes) -> Nodes:
    return {"first": predict(**first), "answer": {**predict(**second), "inputs": ["first", "question"]}}


def vote(**settings: Any) -> Nodes:
    return {"answer": {"layer": "vote", "inputs": ["question"], **settings}}


def search(temperature: float, **settings: Any) -> Nodes:
    parts = {"propose": part(temperature=temperature, max_tokens=20), "answer": part(choices=list(COLOURS))}
    return {"answer": {"layer": "tree_search", "inputs": ["question"], **parts, **settings}}


def refined(**settings: Any) -> Nodes:
    return {"answer": {"layer": "refine", "inputs": ["question"], "of": part(), **settings}}


def route(*told: str) -> Nodes:
    experts = {f"e{number}": part(instruction=text) for number, text in enumerate(told)}
    return {"answer": {"layer": "route", "inputs": ["question"], "gate": part(), "experts": experts}}


def passages(**settings: Any) -> Nodes:
    look = {"layer": "retrieve", "inputs": ["question"], "index": "kb", **settings}
    return {"passages": look, "answer": {**predict(), "inputs": ["passages", "question"]}}


def full(nodes: Nodes, inputs: tuple[str, ...] = ("question",), output: str = "answer") -> Nodes:
    return {"inputs": list(inputs), "nodes": dict(nodes), "output": output}


def code(then: str) -> Nodes:
    run = {"layer": "run_code", "inputs": ["question", "code"], "then": then}
    return {"code": predict(outputs=["code"]), "answer": run}


def calls(functions: str) -> Nodes:
    return {"answer": {"layer": "tool_call", "inputs": ["functions", "question"], "functions": functions}}


def agent(steps: int) -> Nodes:
    return {"answer": {"layer": "agent", "inputs": ["question"], "index": "kb", "steps": steps}}


def memory(**settings: Any) -> Nodes:
    notes = {"layer": "memory", "inputs": ["question"], **settings}
    return {"notes": notes, "answer": {**predict(), "inputs": ["notes", "question"]}}


def thinking(cap: int) -> Nodes:
    steps = {"reason": part(outputs=["reasoning"], max_tokens=cap), "say": part(outputs=["answer"])}
    return {"answer": {"layer": "sequential", "inputs": ["question"], "steps": steps}}


def dev_rows(count: int) -> Subject:
    return subject(closed(), dev=(COLOURS * 4)[:count])


def wide_rows(**inputs: str) -> Subject:
    return subject(full({"answer": {**predict(), "inputs": list(inputs)}}, tuple(inputs)), TEXTS, TEXTS * 2, **inputs)


LONG = "x" * 4400  # 1,100 tokens by estimate

# name: kind, severity, place, a subject that has it, and one that has been put right
CASES: dict[str, tuple[Kind, str, str, Subject, Subject]] = {
    "a node that nobody reads": (
        "dead_node", "warning", "aside",
        subject({"aside": predict(), **closed()}),
        subject({"aside": predict(), "answer": {**predict(choices=list(COLOURS)), "inputs": ["aside", "question"]}}),
    ),
    "a node that only a dead one reads": (
        "dead_node", "warning", "aside",
        subject({"aside": predict(), "more": {**predict(instruction="Go on."), "inputs": ["aside"]}, **closed()}),
        subject(two({}, {"choices": list(COLOURS)})),
    ),
    "an input that only a dead node reads": (
        "unused_input", "warning", "inputs",
        subject(full({"aside": {**predict(), "inputs": ["hint"]}, **closed()}, ("question", "hint")), hint="x"),
        subject(full({"answer": {**predict(choices=list(COLOURS)), "inputs": ["hint", "question"]}},
                     ("question", "hint")), hint="x"),
    ),
    "an input of the rows that the program does not have": (
        "unused_data", "note", "data.inputs.hint", subject(closed(), hint="x"), subject(closed()),
    ),
    "a field written after the last one that is read": (
        "unused_field", "warning", "first",
        subject({"first": predict(outputs=["plan", "remark"]),
                 "answer": {**predict(choices=list(COLOURS)), "inputs": ["first.plan"]}}),
        subject({"first": predict(outputs=["remark", "plan"]),
                 "answer": {**predict(choices=list(COLOURS)), "inputs": ["first.plan"]}}),
    ),
    "a branch that nobody reads": (
        "unused_field", "warning", "both",
        subject({"both": {"layer": "parallel", "inputs": ["question"],
                          "branches": {"a": part(), "b": part(instruction="Why?")}},
                 "answer": {**predict(), "inputs": ["both.b"]}}, TEXTS, TEXTS * 2),
        subject({"both": {"layer": "parallel", "inputs": ["question"],
                          "branches": {"a": part(), "b": part(instruction="Why?")}},
                 "answer": {**predict(), "inputs": ["both.a", "both.b"]}}, TEXTS, TEXTS * 2),
    ),
    "tests that are no input": (
        "missing_field", "warning", "answer.then",
        subject(code("tests"), TEXTS, TEXTS * 2), subject(code("question"), TEXTS, TEXTS * 2),
    ),
    "functions that are no input": (
        "missing_field", "error", "answer.functions",
        subject(calls("tools"), TEXTS, TEXTS * 2, functions="[]"),
        subject(calls("functions"), TEXTS, TEXTS * 2, functions="[]"),
    ),
    "two nodes that ask the same": (
        "repeated_request", "warning", "second",
        subject({"first": predict(), "second": predict(outputs=["again"]),
                 "answer": {**predict(instruction="Compare."), "inputs": ["first", "second"]}}, TEXTS, TEXTS * 2),
        subject({"first": predict(), "second": predict(outputs=["again"], style="plain"),
                 "answer": {**predict(instruction="Compare."), "inputs": ["first", "second"]}}, TEXTS, TEXTS * 2),
    ),
    "two branches of a vote that ask the same": (
        "repeated_request", "warning", "answer.branches.b",
        subject(vote(branches={"a": part(temperature=0.7), "b": part(temperature=0.7), "c": part(style="plain")})),
        subject(vote(branches={"a": part(), "b": part(temperature=0.7), "c": part(style="plain")})),
    ),
    "one instruction in two places": (
        "repeated_instruction", "note", "answer.instruction",
        subject(two({"instruction": "Say it again."}, {"instruction": "say it  again"}), TEXTS, TEXTS * 2),
        subject(two({"instruction": "Say it again."}, {"instruction": "Say it once."}), TEXTS, TEXTS * 2),
    ),
    "nearly one instruction in two places": (
        "repeated_instruction", "note", "answer.instruction",
        subject(two({"instruction": WORDS}, {"instruction": f"{WORDS} not."}), TEXTS, TEXTS * 2),
        subject(two({"instruction": WORDS}, {"instruction": f"{WORDS} that is so"}), TEXTS, TEXTS * 2),
    ),
    "a sentence said twice": (
        "repeated_sentence", "warning", "answer.instruction",
        subject(closed(instruction="Name the main colour. Look closely. Name the main colour!")),
        subject(closed(instruction="Name the main colour. Look closely. Look closely.")),
    ),
    "a label that is no choice": (
        "foreign_label", "warning", "answer.instruction",
        subject(closed(instruction="Answer with one of: red, green, or yellow.")),
        subject(closed(instruction="Answer with one of: red, green, or blue.")),
    ),
    "choices that a list leaves out": (
        "foreign_label", "warning", "answer.instruction",
        subject(closed(instruction="Choose between red and green.")),
        subject(closed(instruction="Choose between red, green and blue.")),
    ),
    "words for a number": (
        "foreign_label", "warning", "answer.instruction",
        subject(typed("int", instruction="Is it so? Answer yes or no."), ("1", "2"), ("3",) * 6),
        subject(typed("bool", instruction="Is it so? Answer true or false."), ("true", "false"), ("true",) * 6),
    ),
    "JSON from a choice": (
        "foreign_format", "warning", "answer.instruction",
        subject(closed(instruction="Name the colour. Return a JSON object.")),
        subject(typed({"schema": {"type": "object", "properties": {}}},
                      instruction="Name the colour. Return a JSON object."), ("{}",), ("{}",) * 6),
    ),
    "reasons from a choice": (
        "foreign_format", "warning", "answer.instruction",
        subject(closed(instruction="Think step by step, then name the colour.")),
        subject({"answer": predict(outputs={"why": "text", "answer": {"choices": list(COLOURS)}},
                                   instruction="Think step by step, then name the colour.")}),
    ),
    "one word from choices of two": (
        "foreign_format", "warning", "answer.instruction",
        subject({"answer": predict(choices=["dark red", "blue"], instruction="Name it in one word.")},
                ("dark red", "blue") * 9, ("blue",) * 6),
        subject({"answer": predict(choices=["red", "blue"], instruction="Name it in one word.")},
                ("red", "blue") * 9, ("blue",) * 6),
    ),
    "choices that nothing names": (
        "unnamed_choices", "note", "answer.list_choices",
        subject(closed(list_choices="no", instruction="Which colour is it?")),
        subject(closed(list_choices="no", instruction="Is it red, green or blue?")),
    ),
    "a demonstration of no choice": (
        "foreign_demo", "warning", "answer.demos",
        subject(closed(demos=demos(("a", "red"), ("b", "Green")))),
        subject(closed(demos=demos(("a", "red"), ("b", "green")))),
    ),
    "a demonstration shown twice": (
        "repeated_demo", "warning", "answer.demos",
        subject(closed(demos=demos(("a", "red"), ("A ", "red")))),
        subject(closed(demos=demos(("a", "red"), ("b", "red")))),
    ),
    "demonstrations that contradict": (
        "contrary_demos", "warning", "answer.demos",
        subject(closed(demos=demos(("a", "red"), ("a", "blue")))),
        subject(closed(demos=demos(("a", "red"), ("b", "blue")))),
    ),
    "a demonstration that is a row of dev": (
        "leaked_demo", "warning", "answer.demos",
        subject(closed(demos=demos(("What is dev 2?", "red")))),
        subject(closed(demos=demos(("What is train 2?", "red")))),
    ),
    "a cap below the shortest reply": (
        "cap", "error", "answer.max_tokens",
        subject({"answer": predict(outputs={"why": "text", "answer": "bool"}, max_tokens=3)},
                ("true", "false"), ("true",) * 6),
        subject({"answer": predict(outputs={"why": "text", "answer": "bool"}, max_tokens=12)},
                ("true", "false"), ("true",) * 6),
    ),
    "a cap below the longest choice": (
        "cap", "warning", "answer.max_tokens",
        subject(typed({"choices": ["no", "a rather long choice"]}, max_tokens=4), ("no",) * 6, ("no",) * 6),
        subject(typed({"choices": ["no", "a rather long choice"]}, max_tokens=5), ("no",) * 6, ("no",) * 6),
    ),
    "a cap below the longest target": (
        "cap", "warning", "answer.max_tokens",
        subject({"answer": predict(max_tokens=8)}, ("x" * 33, "y"), TEXTS * 2),
        subject({"answer": predict(max_tokens=8)}, ("x" * 32, "y"), TEXTS * 2),
    ),
    "a stop between two fields": (
        "stop", "error", "answer.stop",
        subject({"answer": predict(outputs=["why", "answer"], stop=["\n"])}, TEXTS, TEXTS * 2),
        subject({"answer": predict(outputs=["why", "answer"], stop=["\n\n"])}, TEXTS, TEXTS * 2),
    ),
    "a stop in a typed choice": (
        "stop", "warning", "answer.stop",
        subject(typed({"choices": ["a. b", "c"]}, stop=["."]), ("c",) * 6, ("c",) * 6),
        subject(typed({"choices": ["a b", "c"]}, stop=["."]), ("c",) * 6, ("c",) * 6),
    ),
    "a stop in a demonstration": (
        "stop", "warning", "answer.stop",
        subject({"answer": predict(stop=["."], demos=demos(("a", "b. c")))}, TEXTS, TEXTS * 2),
        subject({"answer": predict(stop=["."], demos=demos(("a", "b c")))}, TEXTS, TEXTS * 2),
    ),
    "a stop in targets": (
        "stop", "warning", "answer.stop",
        subject({"answer": predict(stop=["car"])}, TEXTS, TEXTS * 2),
        subject({"answer": predict(stop=["train"])}, TEXTS, TEXTS * 2),
    ),
    "a default stop of plain style in targets": (
        "stop", "warning", "answer.style",
        subject({"answer": predict(style="plain")}, ("a\n\nb", "c"), TEXTS * 2),
        subject({"answer": predict(style="chat")}, ("a\n\nb", "c"), TEXTS * 2),
    ),
    "an expression without an end": (
        "endless", "warning", "answer.outputs",
        subject(typed({"regex": "[0-9]+"}), ("1", "2"), ("1",) * 6),
        subject(typed({"regex": "[0-9]{1,9}"}), ("1", "2"), ("1",) * 6),
    ),
    "a list longer than the cap": (
        "endless", "note", "answer.outputs",
        subject(typed({"list": "text"}), ("[]", '["a"]'), ("[]",) * 6),
        subject(typed({"list": "bool"}), ("[]", "[true]"), ("[]",) * 6),
    ),
    "a long text that another node reads": (
        "long_text", "warning", "first.max_tokens",
        subject(two({"max_tokens": 250}, {"instruction": "Go on."}), TEXTS, TEXTS * 2),
        subject(two({"max_tokens": 249}, {"instruction": "Go on."}), TEXTS, TEXTS * 2),
    ),
    "a long text that the next step reads": (
        "long_text", "warning", "answer.steps.reason.max_tokens",
        subject(thinking(300), TEXTS, TEXTS * 2), subject(thinking(200), TEXTS, TEXTS * 2),
    ),
    "a stop where nothing is written": (
        "idle_setting", "note", "answer.stop", subject(closed(stop=["."])), subject(closed()),
    ),
    "a beam where there is none": (
        "idle_setting", "note", "answer.beam",
        subject(search(0.8, strategy="best_first", beam=3)), subject(search(0.8, strategy="beam", beam=3)),
    ),
    "fewer thoughts than a line has": (
        "idle_setting", "note", "answer.nodes",
        subject(search(0.8, depth=4, nodes=3)), subject(search(0.8, depth=4, nodes=4)),
    ),
    "a question that is never asked": (
        "idle_setting", "note", "answer.question",
        subject(refined(keep="last", question="Which? Say 1 or 2."), TEXTS, TEXTS * 2),
        subject(refined(question="Which? Say 1 or 2."), TEXTS, TEXTS * 2),
    ),
    "a cap on revisions that are chosen": (
        "idle_setting", "note", "answer.max_tokens",
        subject(refined(of=part(choices=list(COLOURS)), max_tokens=20)), subject(refined(max_tokens=20)),
    ),
    "a decision drawn at random": (
        "sampled_decision", "warning", "answer.temperature",
        subject(typed({"choices": list(COLOURS)}, temperature=0.5)),
        subject(vote(of=part(outputs={"answer": {"choices": list(COLOURS)}}, temperature=0.5))),
    ),
    "two votes": (
        "few_votes", "warning", "answer.n",
        subject(vote(of=part(temperature=0.7), n=2), TEXTS, TEXTS * 2),
        subject(vote(of=part(temperature=0.7), n=2, weights="likelihood"), TEXTS, TEXTS * 2),
    ),
    "one branch": (
        "few_votes", "warning", "answer.branches",
        subject(vote(branches={"a": part()}), TEXTS, TEXTS * 2),
        subject(vote(branches={name: part(instruction=name) for name in "abc"}), TEXTS, TEXTS * 2),
    ),
    "proposals that are all the same": (
        "same_proposals", "warning", "answer.propose.temperature", subject(search(0.0)), subject(search(0.8)),
    ),
    "experts that are all the same": (
        "same_experts", "warning", "answer.experts",
        subject(route("Help.", "Help."), TEXTS, TEXTS * 2), subject(route("Help.", "Wait."), TEXTS, TEXTS * 2),
    ),
    "a check that never passes": (
        "endless_check", "warning", "answer.check",
        subject(refined(check=part(choices=["right", "wrong"])), TEXTS, TEXTS * 2),
        subject(refined(check=part(choices=["ok", "wrong"])), TEXTS, TEXTS * 2),
    ),
    "an agent that can only finish": (
        "unused_tools", "warning", "answer.steps",
        subject(agent(1), TEXTS, TEXTS * 2), subject(agent(2), TEXTS, TEXTS * 2),
    ),
    "a memory without notes": (
        "empty_memory", "warning", "notes",
        subject(memory(write="none"), TEXTS, TEXTS * 2),
        subject(memory(write="none", entries=["Say less."]), TEXTS, TEXTS * 2),
    ),
    "a threshold that no fused score reaches": (
        "no_passages", "warning", "passages.threshold",
        subject(passages(threshold=0.5), TEXTS, TEXTS * 2),
        subject(passages(threshold=0.5, mode="dense"), TEXTS, TEXTS * 2),
    ),
    "a threshold above any cosine": (
        "no_passages", "warning", "passages.threshold",
        subject(passages(threshold=1.5, mode="dense"), TEXTS, TEXTS * 2),
        subject(passages(threshold=1.5, mode="lexical"), TEXTS, TEXTS * 2),
    ),
    "a row that does not fit": (
        "context", "error", "answer", wide_rows(question=LONG), wide_rows(question=LONG[:2000]),
    ),
    "a prompt that may not fit": (
        "context", "warning", "answer",
        subject(passages(k=4), TEXTS, TEXTS * 2), subject(passages(k=2), TEXTS, TEXTS * 2),
    ),
    "a prompt that nearly fills the context": (
        "context", "warning", "answer", wide_rows(question=LONG[:3200]), wide_rows(question=LONG[:2900]),
    ),
    "answers that cannot be given": (
        "foreign_target", "error", "data.target",
        subject(closed(), ("pink",), ("pink",) * 6), subject(closed(), ("Red",), ("BLUE",) * 6),
    ),
    "an answer that cannot be given": (
        "foreign_target", "warning", "data.target",
        subject(typed("int"), ("1", "2", "three"), ("4",) * 6), subject(typed("int"), ("1", "2", "+3"), ("4",) * 6),
    ),
    "a metric that no target meets": (
        "unmet_metric", "error", "metric",
        subject(closed(), metric="numeric"), subject(closed(), metric="exact_match"),
    ),
    "a metric that one target does not meet": (
        "unmet_metric", "warning", "metric",
        subject({"answer": predict()}, ("1", "two"), ("3",) * 6, "numeric"),
        subject({"answer": predict()}, ("1", "2 of 7"), ("3",) * 6, "numeric"),
    ),
    "a likelihood of open text": (
        "unmet_metric", "error", "metric",
        subject(typed({"choices": list(COLOURS)}), metric="choice_likelihood"),
        subject(closed(), metric="choice_likelihood"),
    ),
    "rows without an answer": (
        "unmet_metric", "error", "metric", subject(closed(), ("",) * 3, ("",) * 6), subject(closed()),
    ),
    "a label that stands once in train": (
        "lone_label", "warning", "data.train", subject(closed(), (*COLOURS, "red", "green")), subject(closed()),
    ),
    "a label that only dev has": (
        "missing_label", "warning", "data.train",
        subject(closed(), ("red", "green") * 9), subject(closed(), COLOURS * 9),
    ),
    "a choice that no row has": (
        "missing_label", "note", "data.train",
        subject(closed(), ("red", "green") * 9, ("red",) * 6),
        subject(closed(), ("Red", "GREEN", "blue") * 9, ("Red",) * 6),
    ),
    "one label for nearly all": (
        "imbalance", "warning", "data.train",
        subject(closed(), ("red",) * 26 + ("green",) * 2 + ("blue",) * 2), subject(closed(), COLOURS * 10),
    ),
    "a label ten times as common as another": (
        "imbalance", "note", "data.train",
        subject(closed(), ("red",) * 20 + ("green",) * 20 + ("blue",) * 2),
        subject(closed(), ("red",) * 19 + ("green",) * 19 + ("blue",) * 2),
    ),
    "too few rows in dev": ("few_rows", "warning", "data.dev", dev_rows(5), dev_rows(6)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_found_where_it_is_and_nowhere_else(name: str) -> None:
    kind, severity, place, bad, good = CASES[name]
    seen = [finding for finding in found(bad) if (finding.kind, finding.place) == (kind, place)]
    assert [finding.severity for finding in seen] == [severity], found(bad)
    assert seen[0].text
    assert seen[0].advice
    assert not [finding for finding in found(good) if finding.kind == kind and finding.severity == severity], found(
        good
    )


def test_every_kind_of_finding_has_a_case() -> None:
    outside_of_the_program = {"outside"}  # found by `localgrad check`, which looks at files
    known = {*get_args(OfProgram), *get_args(OfTask)}
    assert {kind for kind, *_ in CASES.values()} == known - outside_of_the_program


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stock_architectures_have_no_errors(name: str) -> None:
    program = made(name)
    given = dict.fromkeys(program.inputs, "[]")
    examples = [Example(f"e{number}", given, (target,)) for number, target in enumerate(TEXTS * 3)]
    limits = Limits(8192, 6)
    seen = found(Subject(program, tuple(examples), tuple(examples), METRICS["token_f1"]), limits)
    assert [finding for finding in seen if finding.severity == "error"] == []


SOUND = (
    "Classify the colour of the object in the question.",
    "Is it red, green or blue? Decide by the largest part.",
    "Answer with red, green or blue, in lower case.",
    "Answer with the label alone, nothing else.",
    "Answer the question about the car or the house.",
    "Name the colour: red for warm things, green for plants and blue for water.",
    "Choose one of the following: red, green, blue.",
    "Choose one of red / green / blue.",
    'Say "red", "green" or "blue".',
    "Classify the picture of a dog or a cat as red, green or blue.",
    "The question speaks of things such as cars, plants or water.",
    "Classify the JSON object in the question. It has keys and values.",
    "Think of the colour, red, green and blue, that comes to mind first.",
    "Explain nothing. Name the colour.",
    "Answer in one word.",
    "Say which number of the palette is meant, and answer with its colour.",
    "What is it? Is it a red, a green or a blue thing? What is it like?",
    "Decide between Red and Green and Blue.",
)


@pytest.mark.parametrize("told", SOUND)
def test_a_sound_instruction_raises_no_alarm(told: str) -> None:
    assert found(subject(closed(instruction=told))) == []


def test_labels_may_hold_what_parts_the_items_of_a_list() -> None:
    labels = ["World", "Sci/Tech", "food and drink"]
    nodes = {"answer": predict(choices=labels, instruction="Choose one of: world, food and drink, Sci/Tech.")}
    assert found(subject(nodes, labels * 8, labels * 8)) == []
    nodes = {"answer": predict(choices=labels, instruction="Classify it as World, sports, Sci/Tech or food and drink.")}
    assert "it names sports, and" in found(subject(nodes, labels * 8, labels * 8))[0].text


CONTRARY = {
    "What is it: a red, a green or a brown? What is it?": ("foreign_label", "brown"),
    "Classify the question as red, green or brown.": ("foreign_label", "brown"),
    "Is it red, green or brown?": ("foreign_label", "brown"),
    "Pick from: RED, Green, Blue and Black.": ("foreign_label", "Black"),
    "Labels: warm, cold, neither": ("foreign_label", "warm, cold, neither"),
    "Reply with 'yes' or 'no'.": ("foreign_label", "yes, no"),
    "Answer yes or no.": ("foreign_label", "yes, no"),
    "Respond with one of red|green.": ("foreign_label", "blue"),
    "Name the colour and answer as a JSON object.": ("foreign_format", "JSON"),
    "Name the colour and explain your choice.": ("foreign_format", "reasons"),
    "Answer in a full sentence.": ("foreign_format", "a sentence"),
    "Answer only with a number.": ("foreign_format", "a number"),
}


@pytest.mark.parametrize("told", CONTRARY)
def test_an_instruction_that_asks_for_what_cannot_be_given_is_found(told: str) -> None:
    kind, named = CONTRARY[told]
    (finding,) = found(subject(closed(instruction=told)))
    assert finding.kind == kind
    assert named in finding.text


def test_open_text_may_be_asked_for_in_any_form() -> None:
    told = "Think step by step. Return JSON with one of: red, green, or yellow. Answer with a number, in one word."
    assert found(subject({"answer": predict(instruction=told)})) == []


def test_findings_come_worst_first_and_once() -> None:
    notes = [Finding("note", "idle_setting", "a", "x", "y"), Finding("error", "stop", "b", "x", "y")]
    notes += [Finding("warning", "stop", "c", "x", "y"), Finding("error", "cap", "a", "x", "y"), notes[0]]
    assert [(one.severity, one.place) for one in worst_first(notes)] == [
        ("error", "b"), ("error", "a"), ("warning", "c"), ("note", "a"),
    ]  # fmt: skip


def test_what_a_metric_of_the_users_own_needs_is_not_guessed() -> None:
    def fails(prediction: object, example: object) -> float:
        raise AssertionError("it is not to be called")

    bad = subject(closed(), metric="numeric")
    assert not findings(Subject(bad.program, bad.train, bad.dev, Metric("numeric", fails)), Limits())


def test_analyse_counts_and_asks_for_nothing_else() -> None:
    given = subject(two({"max_tokens": 400}, {"instruction": "Go on.", "demos": []}), TEXTS, TEXTS * 2)
    with Runtime({"task": ScriptedBackend(keyword_script)}, Store(":memory:")) as runtime:
        seen = runtime.run(analyse(given.program, given.train, LIMITS, given.dev, given.metric))
        assert runtime.usage.calls == 0
    assert [finding.kind for finding in seen] == ["long_text"]
    assert set(findings(given, LIMITS)) <= set(seen)


def test_without_exact_figures_nothing_is_called_an_error() -> None:
    bad = wide_rows(question=LONG)
    (exact,), (guessed,) = found(bad), found(bad, Limits(1000, 6, exact=False))
    assert (exact.severity, guessed.severity) == ("error", "warning")
    assert exact.row == guessed.row == "train.jsonl:1"
    assert found(bad, Limits()) == [], "where the context is not known nothing is said of it"
    cap = subject({"answer": predict(outputs={"why": "text", "answer": "bool"}, max_tokens=3)}, ("true",), ("true",))
    assert [one.severity for one in found(cap, Limits(exact=False)) if one.kind == "cap"] == ["warning"]


def test_a_row_that_need_not_meet_its_request_is_no_error() -> None:
    """Of a pool an example is shown others, and an expert is not asked by all."""
    pool = {"answer": predict(demos=demos(("x" * 2000, "a"), ("y" * 2000, "b"), ("z", "c")), nearest=2)}
    (seen,) = found(subject(pool, TEXTS, TEXTS * 2))
    assert (seen.kind, seen.severity) == ("context", "warning")
    nodes = route("Help.", "Wait.")
    given = Subject(Program.from_mapping(nodes), (Example("l", {"question": LONG}, ("a",), "train.jsonl:1"),))
    severities = {one.place: one.severity for one in found(given) if one.kind == "context"}
    assert severities == {"answer.gate": "error", "answer.experts.e0": "warning", "answer.experts.e1": "warning"}


def test_checks_take_no_part_of_a_layer_for_another() -> None:
    """What only lies in the way (a gate, a check, a critic) is not what writes the answer."""
    gate = {"layer": "predict", "instruction": "Which?"}
    experts = {name: part(choices=list(COLOURS), instruction=name) for name in ("a", "b")}
    nodes = {"answer": {"layer": "route", "inputs": ["question"], "gate": gate, "experts": experts}}
    assert found(subject(nodes)) == []
    drawn = part(outputs={"answer": {"choices": list(COLOURS)}}, temperature=0.5)
    seen = found(subject(search(0.8, answer=drawn)))
    assert [one.place for one in seen if one.kind == "sampled_decision"] == ["answer.answer.temperature"]
    nodes = refined(of=part(choices=list(COLOURS)), check=part(outputs=["check"], instruction="Is it right?"))
    assert found(subject(nodes)) == []
