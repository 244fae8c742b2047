"""Stock architectures: the workflows that papers give a name to, each as the nodes of a program.

    program: {architecture: rag, index: kb, k: 6, instruction: "Answer from the passages."}

A task file uses one by its name; `architecture()` gives it in Python. Settings that an architecture does not take
itself are those of the layer that answers (`predict`): instruction, choices, style, max_tokens and so on. What comes
out is an ordinary program: `localgrad graph` draws it, and it can be written out and changed node by node.

| name | what it is | from |
|---|---|---|
| predict | ask once | |
| nearest_demos | show each example the nearest train examples (`nearest: 8`) | Liu 2022 (KATE) |
| cot | reason, then answer | Wei 2022 |
| plan_and_solve | plan, then follow the plan | Wang 2023 (Plan-and-Solve) |
| self_consistency | the majority of sampled chains of thought | Wang 2023 |
| ensemble | the majority of differently instructed answers | |
| self_refine | draft, critique, revise; keep the better | Madaan 2023 |
| reflexion | the same, told what a check found, remembering earlier reflections | Shinn 2023 |
| tree_of_thoughts | search over steps of reasoning | Yao 2023 |
| rag, hybrid_rag | passages by meaning, or by meaning and words, then answer | Lewis 2020 |
| multi_hop_rag | look, think, look again with the thought | Trivedi 2023 (IRCoT) |
| react | think, use a tool, see what it gave, again | Yao 2023 (ReAct) |
| tool_call | choose one function of those in an input, and its arguments | |
| pal | write code whose value is the answer | Gao 2023 |
| program_of_thought | write code, then answer with its result | Chen 2022 |
| router | send the example to the expert for its kind | Shazeer 2017 (mixture of experts) |
| classify_then_answer | name the kind of question, then answer knowing it | |
| text_to_sql | write a query over a SQLite file, then answer with its rows | |
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from engine.errors import ContentError
from engine.program.graph import Program
from engine.program.layer import LAYERS
from engine.program.layers import Predict
from engine.program.settings import checked_setting
from engine.tasks.taskfile import nearest

Nodes = dict[str, dict[str, Any]]
Settings = Mapping[str, Any]

_ANSWER_SETTINGS = ("outputs", *(item.name for item in fields(Predict) if item.name != "output"))


def architecture(name: str, inputs: tuple[str, ...], **settings: Any) -> Program:
    """A stock architecture as a program that reads `inputs`, the question first.

    Raises:
        ContentError: no such architecture, or a setting is unknown, missing or wrong.
    """
    return Program.from_mapping(architecture_nodes(name, inputs, settings))


def architecture_nodes(name: str, inputs: tuple[str, ...], settings: Settings) -> Nodes:
    """The nodes of a stock architecture as plain data, the one that answers last.

    Raises:
        ContentError: no such architecture, or a setting is unknown or missing; `path` names it.
    """
    if name not in ARCHITECTURES:
        hint = "that is a layer: write it as a node" if name in LAYERS else nearest(name, list(ARCHITECTURES))
        raise ContentError(f"unknown architecture {name!r}: {hint}", ("architecture",))
    build = ARCHITECTURES[name]
    own = {key: item for key, item in inspect.signature(build).parameters.items() if item.kind is item.KEYWORD_ONLY}
    for key in settings:
        if key not in own and key not in _ANSWER_SETTINGS:
            raise ContentError(f"unknown key {key!r}: {nearest(key, [*own, *_ANSWER_SETTINGS])}", (key,))
    for key, item in own.items():
        if key not in settings and item.default is item.empty:
            raise ContentError(f"architecture {name} needs {key}")
    answer = {key: value for key, value in settings.items() if key not in own}
    return build(inputs, answer, **{key: checked_setting(build, key, settings[key]) for key in own if key in settings})


def _predict(
    inputs: tuple[str, ...], answer: Settings, *before: str, says: str = "Answer the question."
) -> dict[str, Any]:
    """The layer that answers, which reads `before` and the inputs; `says` is its instruction where none is given."""
    return {"layer": "predict", "inputs": [*before, *inputs], "instruction": says, **answer}


def _part(answer: Settings, says: str = "Answer the question.", **changes: Any) -> dict[str, Any]:
    """The same as a part of another layer."""
    return {"layer": "predict", "instruction": says, **answer, **changes}


def _thinking(answer: Settings, **reason: Any) -> dict[str, Any]:
    """A part that reasons and then answers, in two steps, so that a small model needs to keep to no form."""
    style = {key: value for key, value in answer.items() if key == "style"}
    says = {"instruction": "Think step by step.", "outputs": ["reasoning"], "max_tokens": 96}
    steps = {
        "reason": {"layer": "predict", **says, **style, **reason},
        "answer": _part(answer, "Give the answer that the reasoning leads to.", outputs=["answer"]),
    }
    return {"layer": "sequential", "steps": steps}


def predict(inputs: tuple[str, ...], answer: Settings) -> Nodes:
    """Ask once."""
    return {"answer": _predict(inputs, answer)}


def nearest_demos(inputs: tuple[str, ...], answer: Settings) -> Nodes:
    """Ask once, with the nearest of the train examples as demonstrations, eight unless `nearest` says otherwise."""
    return {"answer": _predict(inputs, {"demos": "train", "style": "plain", "nearest": 8, **answer})}


def cot(inputs: tuple[str, ...], answer: Settings) -> Nodes:
    """Reason, then answer."""
    return {"answer": {"inputs": list(inputs), **_thinking(answer)}}


def plan_and_solve(inputs: tuple[str, ...], answer: Settings) -> Nodes:
    """Plan, then follow the plan."""
    plan = {"layer": "predict", "inputs": list(inputs), "instruction": "Write a short plan for solving this."}
    return {"plan": {**plan, "max_tokens": 80}, "answer": _predict(inputs, answer, "plan", says="Follow the plan.")}


def self_consistency(inputs: tuple[str, ...], answer: Settings, *, n: int = 5, weights: str = "count") -> Nodes:
    """The majority of n sampled chains of thought."""
    sampled = {key: value for key, value in answer.items() if key != "temperature"}
    part = _thinking(sampled, temperature=answer.get("temperature", 0.7))
    return {"answer": {"layer": "vote", "inputs": list(inputs), "n": n, "weights": weights, "of": part}}


def ensemble(inputs: tuple[str, ...], answer: Settings, *, weights: str = "count") -> Nodes:
    """The majority of three answers, each asked for in another way."""
    ways = {
        "short": _part(answer, "Answer the question."),
        "careful": _part(answer, "Read the question carefully and answer it. Check your answer."),
        "expert": _part(answer, "You are an expert. Answer the question."),
    }
    return {"answer": {"layer": "vote", "inputs": list(inputs), "weights": weights, "branches": ways}}


def self_refine(inputs: tuple[str, ...], answer: Settings, *, rounds: int = 1) -> Nodes:
    """Draft, critique, revise, and keep the better."""
    return {"answer": {"layer": "refine", "inputs": list(inputs), "rounds": rounds, "of": _part(answer)}}


def reflexion(
    inputs: tuple[str, ...], answer: Settings, *, rounds: int = 2, check: Mapping[str, Any] | None = None
) -> Nodes:
    """Draft, check, reflect on what the check found, and try again; `check` is a layer, by default the model itself."""
    asks = "Is the answer right? Say ok, or what is wrong with it."
    judge = check or {"layer": "predict", "instruction": asks, "outputs": ["check"], "max_tokens": 40}
    refine = {"layer": "refine", "inputs": list(inputs), "rounds": rounds, "of": _part(answer), "check": dict(judge)}
    return {"answer": refine}


def tree_of_thoughts(
    inputs: tuple[str, ...], answer: Settings, *, depth: int = 2, branch: int = 3, beam: int = 2
) -> Nodes:
    """Search over steps of reasoning: several proposals a step, the best of which are gone on with."""
    propose = {"layer": "predict", "instruction": "Write the next step of the solution.", "outputs": ["thought"]}
    search = {"layer": "tree_search", "inputs": list(inputs), "depth": depth, "branch": branch, "beam": beam}
    parts = {
        "propose": {**propose, "temperature": 0.8, "max_tokens": 48, "stop": ["\n"]},
        "answer": _part(answer, "Answer the question, using the steps."),
    }
    return {"answer": {**search, **parts}}


def rag(inputs: tuple[str, ...], answer: Settings, *, index: str, k: int = 4, mode: str = "dense") -> Nodes:
    """Retrieve passages by the first input, then answer."""
    passages = {"layer": "retrieve", "inputs": [inputs[0]], "index": index, "k": k, "mode": mode}
    return {"passages": passages, "answer": _predict(inputs, answer, "passages", says=_FROM_PASSAGES)}


def hybrid_rag(inputs: tuple[str, ...], answer: Settings, *, index: str, k: int = 4) -> Nodes:
    """Retrieve passages by meaning and by words, then answer."""
    return rag(inputs, answer, index=index, k=k, mode="hybrid")


def multi_hop_rag(inputs: tuple[str, ...], answer: Settings, *, index: str, k: int = 3, mode: str = "hybrid") -> Nodes:
    """Retrieve, think of what is still missing, retrieve with that thought, then answer from both."""
    look = {"layer": "retrieve", "index": index, "k": k, "mode": mode}
    thought = {
        "layer": "predict", "inputs": ["passages", *inputs], "max_tokens": 40, "stop": ["\n"],
        "instruction": "Say in one sentence what the passages tell about the question and what to look for next.",
    }  # fmt: skip
    return {
        "passages": {**look, "inputs": [inputs[0]]},
        "thought": thought,
        "more_passages": {**look, "inputs": [inputs[0], "thought"]},
        "answer": _predict(inputs, answer, "passages", "more_passages", says=_FROM_PASSAGES),
    }


def react(
    inputs: tuple[str, ...], answer: Settings, *, tools: tuple[str, ...] = (), index: str = "", steps: int = 4
) -> Nodes:
    """Think, use a tool, look at what it gave, and so on; `index` can be searched like a tool."""
    agent: dict[str, Any] = {"layer": "agent", "inputs": list(inputs), "steps": steps, "tools": list(tools)}
    return {"answer": {**agent, **({"index": index} if index else {}), **answer}}


def tool_call(inputs: tuple[str, ...], answer: Settings, *, functions: str = "functions") -> Nodes:
    """Choose one of the functions that an input describes, and write its arguments."""
    reads = [functions, *(name for name in inputs if name != functions)]
    return {"answer": {"layer": "tool_call", "inputs": reads, "functions": functions, **answer}}


def pal(inputs: tuple[str, ...], answer: Settings) -> Nodes:
    """Write code whose value is the answer."""
    return {"code": _code(inputs, answer), "answer": {"layer": "run_code", "inputs": ["code"], "on_error": "text"}}


def program_of_thought(inputs: tuple[str, ...], answer: Settings) -> Nodes:
    """Write code, run it, and answer with what it gave."""
    writes = {key: value for key, value in answer.items() if key == "style"}
    return {
        "code": _code(inputs, writes),
        "result": {"layer": "run_code", "inputs": ["code"], "on_error": "text"},
        "answer": _predict(inputs, answer, "result", says="Answer the question with the result."),
    }


def _code(inputs: tuple[str, ...], answer: Settings) -> dict[str, Any]:
    """Writes code, with two examples of it where a single input says what they answer; both papers show examples."""
    says = "Write Python code that computes the answer. The last line assigns it."
    shown = [{"inputs": {inputs[0]: question}, "outputs": {"code": code}} for question, code in _SUMS]
    settings = {"max_tokens": 160, "instruction": says, "style": "plain"}
    settings |= {"demos": shown if len(inputs) == 1 else [], **answer}
    return {"layer": "predict", "inputs": list(inputs), "outputs": ["code"], **settings}


def router(
    inputs: tuple[str, ...], answer: Settings, *, experts: Mapping[str, str | Mapping[str, Any]], top: int = 1
) -> Nodes:
    """Send the example to the expert for its kind; experts are layers, or instructions, by the name of their kind."""
    layers = {
        name: dict(expert) if isinstance(expert, Mapping) else _part(answer, expert) for name, expert in experts.items()
    }
    gate = {"layer": "predict", "instruction": "What kind of question is this?"}
    return {"answer": {"layer": "route", "inputs": list(inputs), "gate": gate, "experts": layers, "top": top}}


def classify_then_answer(inputs: tuple[str, ...], answer: Settings, *, kinds: tuple[str, ...]) -> Nodes:
    """Name the kind of question, then answer knowing it."""
    kind = {"layer": "predict", "inputs": list(inputs), "instruction": "What kind of question is this?"}
    return {"kind": {**kind, "choices": list(kinds)}, "answer": _predict(inputs, answer, "kind")}


def text_to_sql(inputs: tuple[str, ...], answer: Settings, *, database: str) -> Nodes:
    """Write a query over a SQLite file, read-only, and answer with its rows."""
    query = {
        "layer": "predict", "inputs": ["tables", *inputs], "max_tokens": 80, "stop": [";", "\n\n"],
        "instruction": "Write one SQLite SELECT statement that answers the question.",
    }  # fmt: skip
    return {
        "tables": {"layer": "schema", "inputs": list(inputs), "database": database},
        "query": query,
        "rows": {"layer": "sql", "inputs": ["query"], "database": database, "on_error": "text"},
        "answer": _predict(inputs, answer, "rows", says="Answer the question with the rows."),
    }


_SUMS = (
    (
        "Tom has 3 boxes with 4 pens each and loses 2 pens. How many pens are left?",
        "boxes = 3\npens_in_a_box = 4\nlost = 2\nanswer = boxes * pens_in_a_box - lost",
    ),
    (
        "A train leaves with 40 people. 15 get off and twice as many get on. How many people are on it?",
        "people = 40\ngot_off = 15\ngot_on = 2 * got_off\nanswer = people - got_off + got_on",
    ),
)
_FROM_PASSAGES = "Answer the question from the passages, in a few words."

ARCHITECTURES: dict[str, Callable[..., Nodes]] = {
    build.__name__: build
    for build in (
        predict, nearest_demos, cot, plan_and_solve, self_consistency, ensemble, self_refine, reflexion,
        tree_of_thoughts, rag, hybrid_rag, multi_hop_rag, react, tool_call, pal, program_of_thought, router,
        classify_then_answer, text_to_sql,
    )
}  # fmt: skip
