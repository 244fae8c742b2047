"""What a model is asked to write from: solved requests, openings, executions as the node of a text has seen them."""

from numpy.random import default_rng
from support_evolution import Scribe
from support_optim import EXACT, closed_program, history_of, rows, runtime_of

from engine.feedback.packing import Part
from engine.inference.scripted import Answer
from engine.optim.words.telling import execution
from engine.optim.words.writing import Brief, openings_like, written
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Predict, Refine, Vote
from engine.program.typed.grammar import prose
from engine.records import Chat, Generate, Request

SHOWN = (("Instruction: Add the numbers.", "Find the sum of all of the numbers."),)


def texts(brief: Brief, answer: str) -> tuple[list[str], Generate]:
    """What comes of a brief where the model gives one answer, and what it was asked."""
    asked: list[Generate] = []

    def script(request: Request, prompt: str) -> Answer:
        assert isinstance(request, Generate)
        asked.append(request)
        return answer

    with runtime_of(Scribe(script)) as runtime:
        found = runtime.run(written(history_of(closed_program(), rows(5)), brief, 1, default_rng(0)))
    return found, asked[0]


def test_solved_requests_are_told_as_turns_before_the_real_one() -> None:
    _, asked = texts(Brief("You rewrite.", (Part("Instruction: Name it."),), shown=SHOWN), "Say what it is.")
    assert isinstance(asked.prompt, Chat)
    assert [(turn.role, turn.text) for turn in asked.prompt.messages] == [
        ("system", "You rewrite."),
        ("user", SHOWN[0][0]),
        ("assistant", SHOWN[0][1]),
        ("user", "Instruction: Name it."),
    ]


def test_what_repeats_the_solved_requests_is_of_no_use_unless_it_was_asked_about() -> None:
    about = Brief("You rewrite.", (Part("Instruction: Name it."),), shown=SHOWN)
    assert texts(about, "Name it, and find the sum of all.")[0] == []
    assert texts(about, "Name it, and find the sum.")[0] == ["Name it, and find the sum."]
    same = Brief("You rewrite.", (Part("Instruction: Find the sum of all of them."),), shown=SHOWN)
    assert texts(same, "Find the sum of all.")[0] == ["Find the sum of all."]


def test_a_text_begins_with_an_order_where_the_texts_there_are_do() -> None:
    openings = openings_like("Classify it.", "Read, then say.")
    assert {"Classify", "Read", "Tell"} <= set(openings)
    _, asked = texts(Brief("You rewrite.", (Part("Go."),), 300, openings=openings), "Tell.")
    assert asked.grammar == prose(300, openings)
    for others in (("Classify it.", "Klassifiziere es."), ("The kind of it.",), (" ",), ()):
        assert openings_like(*others) == ()


def test_an_execution_is_shown_as_the_node_or_the_part_of_a_text_saw_it() -> None:
    text = Input("text")
    draft = Refine(Predict("Draft it.", output="draft"), rounds=1)(text, name="first")
    colour = Predict("Name the colour.", output="colour", temperature=1.0)
    program = Program(Vote(colour, n=2)(text, draft, name="last"))
    answers = {"Draft it.": "a draft", "Name the colour.": "green"}

    def script(request: Request, prompt: str) -> Answer:
        return next((answer for told, answer in answers.items() if told in prompt), "it is bad")

    with runtime_of(script) as runtime:
        (trace,) = runtime.run(EXACT.run(program, rows(1)))
    said = 'Feedback: The answer was "green", but "blue" is right.'
    asked, drafted = "Text: train thing 0 is blue", "Draft: a draft"
    assert execution(trace, "first.of.instruction").split("\n") == [asked, drafted, said]
    assert execution(trace, "first.critique").split("\n")[-2:] == ["Critique: it is bad", said]
    assert execution(trace, "last.of.instruction").split("\n") == [asked, drafted, "Colour: green", said]
    assert execution(trace, "gone.instruction", judged=False) == asked
