"""optoprime: what it asks, what it makes of the answers, and that no answer does harm."""

import json
from dataclasses import replace

import pytest
from numpy.random import default_rng
from support_optim import bad_completions, guessing, history_of, open_program, proposed, rows, runtime_of

import engine
from engine.feedback.propagation.answers import answer_grammar, answer_tokens, read_answer
from engine.feedback.propagation.edits import editable
from engine.feedback.propagation.problem import propagated
from engine.flows import Flow, ask, together
from engine.inference.scripted import Answer, Script
from engine.optim.history import Candidate, History, Proposal
from engine.optim.proposers.optoprime import OptoPrimeProposer
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import RunCode
from engine.records import Chat, Completion, Example, Generate, Prediction, Request, Step, Trace

TRAIN = rows(30)
ANSWER = '{"hint_instruction": "Say the last word.", "colour_max_tokens": 12}'
EDITS = {"hint.instruction": "Say the last word.", "colour.max_tokens": 12}


class Optimizer:
    """A task model that is always wrong, and an optimizer's that gives these answers in turn."""

    __name__ = "optimizer"

    def __init__(self, *answers: str, right: bool = False) -> None:
        self.requests: list[Generate] = []
        self._answers, self._right = answers, right

    def __call__(self, request: Request, prompt: str) -> Answer:
        assert isinstance(request, Generate)
        if request.role == "task":
            last = prompt.split("\nHint:")[0].split()[-1]
            return last if self._right and "Name the colour." in prompt else "something"
        self.requests.append(request)
        return self._answers[(len(self.requests) - 1) % len(self._answers)]

    @property
    def text(self) -> str:
        """The problem that was posed last."""
        prompt = self.requests[-1].prompt
        assert isinstance(prompt, Chat)
        return prompt.messages[-1].text


def run_so_far(program: Program | None = None, *others: Candidate, **settings: int) -> History:
    return history_of(program or open_program(), TRAIN, others=others, **settings)


def propose(script: Script, history: History | None = None, seed: int = 0) -> list[Proposal]:
    return proposed(OptoPrimeProposer(), history or run_so_far(), script, seed)


def test_one_answer_edits_several_parameters_and_equal_answers_are_one_proposal() -> None:
    optimizer = Optimizer(ANSWER)
    note = 'hint.instruction = "Say the last word.", colour.max_tokens = 12'
    assert propose(optimizer) == [Proposal(EDITS, note)]
    assert len(optimizer.requests) == 4
    assert len({request.sample for request in optimizer.requests}) == 4
    assert {request.temperature for request in optimizer.requests} == {0.8}
    assert {request.grammar for request in optimizer.requests} != {None}


def test_different_answers_are_proposals_in_the_order_drawn() -> None:
    other = '{"colour_style": "plain"}'
    found = propose(Optimizer(other, ANSWER, other, "{}"))
    assert [proposal.edits for proposal in found] == [{"colour.style": "plain"}, EDITS]


def test_where_all_is_right_nothing_is_asked() -> None:
    optimizer = Optimizer(ANSWER, right=True)
    assert propose(optimizer) == []
    assert optimizer.requests == []


def test_a_program_without_anything_to_edit_does_not_suit() -> None:
    assert OptoPrimeProposer().suits(open_program())
    assert not OptoPrimeProposer().suits(Program(RunCode()(Input("text"))))


def test_a_text_that_recites_an_example_is_dropped_and_the_rest_of_the_answer_kept() -> None:
    long = replace(TRAIN[0], inputs={"text": "a very long text about a thing that is blue"})
    history = replace(run_so_far(), train=[long])
    recited = json.dumps({"hint_instruction": f"Think of {long.inputs['text']}.", "hint_style": "plain"})
    assert [proposal.edits for proposal in propose(Optimizer(recited), history)] == [{"hint.style": "plain"}]


def attempt(number: int, text: str, score: float, **settings: object) -> Candidate:
    program = open_program().replace({"colour.instruction": text})
    traces = (Trace("p", TRAIN[0], (), Prediction(""), score),)
    made = Candidate(number, program, traces, 1, "optoprime", "note", 0, {"colour.instruction": text})
    return replace(made, **settings)  # type: ignore[arg-type]


def test_the_latest_own_attempts_that_raced_are_remembered_the_last_one_first() -> None:
    others = [attempt(number, f"Attempt number {number}.", number / 10) for number in range(1, 9)]
    others.append(attempt(9, "Never raced.", 1.0, traces=()))
    others.append(attempt(10, "Of another.", 1.0, proposer="opro"))
    optimizer = Optimizer(ANSWER)
    propose(optimizer, run_so_far(None, *others, room_tokens=2000))
    tried = [line for line in optimizer.text.splitlines() if line.startswith("#Tried")]
    assert tried == [
        f'#Tried: colour_instruction = "Attempt number {number}." scored {number / 10:.2f}'
        for number in (8, 7, 6, 5, 4, 3)
    ]


@pytest.mark.parametrize("room", [150, 300, 600])
def test_the_problem_keeps_to_its_room_and_leaves_a_third_of_it_for_the_answer(room: int) -> None:
    optimizer = Optimizer(ANSWER)
    history = run_so_far(None, *(attempt(n, f"Attempt number {n}.", 0.5) for n in range(1, 5)), room_tokens=room)
    propose(optimizer, history)
    with runtime_of(optimizer) as runtime:
        assert runtime.backend("optimizer").count(optimizer.requests[0].prompt) <= room
    assert optimizer.requests[0].max_tokens <= room // 3


def test_two_hundred_bad_completions_give_valid_edits_only_and_the_same_for_the_same_seed() -> None:
    raw = bad_completions(200)
    inside = [json.dumps({"colour_instruction": text, "hint_max_tokens": 9}) for text in raw]
    answers = [*raw, *inside, *(ANSWER[: len(ANSWER) * place // 40] for place in range(40))]
    history, program = replace(run_so_far(), drawn=TRAIN[:2]), open_program()

    def all_proposals(answers: list[str]) -> list[list[Proposal]]:
        with runtime_of(Optimizer(*answers)) as runtime:
            flows = [OptoPrimeProposer().propose(history, default_rng(seed)) for seed in range(len(answers) // 4)]
            return [runtime.run(flow) for flow in flows]

    found = all_proposals(answers)
    assert found[:20] == all_proposals(answers[:80])
    for proposal in (proposal for proposals in found for proposal in proposals):
        assert program.replace(proposal.edits).fingerprint != program.fingerprint
        assert set(proposal.edits) <= set(editable(program))
        assert all(len(str(value)) <= 300 for value in proposal.edits.values())
    assert not any(found[:50]), "nothing can be made of the bare ones"
    assert all(found[50:100]), "of answers that hold a bad text the number beside it is still of use"


def test_another_seed_draws_other_samples() -> None:
    first, second = Optimizer(ANSWER), Optimizer(ANSWER)
    propose(first, seed=1)
    propose(second, seed=2)
    assert {request.sample for request in first.requests}.isdisjoint(request.sample for request in second.requests)


def test_a_model_that_answers_nothing_is_no_error() -> None:
    assert propose(guessing("")) == []


@pytest.mark.model
def test_whatever_the_embedded_model_answers_parses() -> None:
    program = open_program()
    shown = {"text": "the sky over the sea is blue"}
    steps = (
        Step("hint", shown, {"hint": "It is the last word."}),
        Step("colour", {**shown, "hint": "It is the last word."}, {"colour": "green"}),
    )
    trace = Trace("p", Example("1", shown, ("blue",)), steps, Prediction("green"), 0.0)

    def answers() -> Flow[tuple[dict[str, object], list[Completion]]]:
        problem = yield from propagated(program, [trace], 500)
        assert problem is not None
        assert problem.tokens <= 500
        asked = [
            Generate(
                problem.prompt, answer_tokens(problem.parameters), temperature=0.8, sample=sample,
                grammar=answer_grammar(problem.parameters), role="optimizer",
            )
            for sample in range(4)
        ]  # fmt: skip
        completions = yield from together([ask(request) for request in asked])
        assert {completion.prompt_tokens for completion in completions} == {problem.tokens}, "the count is exact"
        return dict(problem.parameters), completions

    with engine.open_runtime("smollm2-135m", store=":memory:") as runtime:
        parameters, completions = runtime.run(answers())
    assert len({completion.text for completion in completions}) > 1
    edited = 0
    for completion in completions:
        assert completion.finish == "stop"
        written = json.loads(completion.text or "")
        assert written
        assert set(written) <= set(parameters)
        edits = read_answer(completion.text or "", program)
        program.replace(edits)
        same = [name for name, value in written.items() if value == parameters[name].value]  # type: ignore[attr-defined]
        assert len(edits) == len(written) - len(same)
        edited += len(edits)
    assert edited
