"""Slots: what a model fills in for an operator, each a form with a few free words and closed choices around them.

    sentence      Look at the ….
    wording       Name the ….    Decide which ….
    rule          If the question asks for …, answer LABEL.    If the question contains "…", answer LABEL.
    description   "LABEL" means ….

The words that a rule may name are closed, too: those that tell a label's train rows from the others. Each form comes
with one other case and its answer, without which SmolLM2-135M wrote about the form and not in it.
"""

import re

from engine.feedback.packing import Part
from engine.optim.edits.cases import Case
from engine.optim.edits.operators import Slot, Target
from engine.optim.words.filling import Form, some_words
from engine.program.typed.grammar import Exactly, Then, words
from engine.records import Example

_INPUT_CHARS = 160
_OPENINGS = ("Look at the", "Look for the", "Think of the", "Pay attention to the")
_VERBS = ("Decide which", "Name the", "Say which", "Choose the")


def forms(slot: Slot, target: Target, case: Case, place: int) -> list[Form]:
    """What to ask for to fill a slot of a target at a place: one form, or several to choose from."""
    match slot:
        case "sentence":
            return [_sentence(target, case)]
        case "wording":
            return [_wording(target.sentences[place].words)]
        case "description":
            return [_description(target, case)]
        case "rule":
            named = [_rule_of_words(target, case)] if case.telling and target.labels else []
            return [_rule(target, case) if target.labels else _open_rule(target, case), *named]


def _sentence(target: Target, case: Case) -> Form:
    """Advice. Where there are labels no examples are shown: a small model would speak of what happens in them."""
    field = target.field.capitalize()
    about = (Part(f"Answers: {', '.join(target.labels)}", 1.0),) if target.labels else _examples(target, case)
    return Form(
        "You add one short sentence of advice to an instruction.",
        (Part(f"Instruction: {target.text.value}"), *about),
        lambda chars: Then((words(_OPENINGS), Exactly(" "), some_words(chars), Exactly("."))),
        shown=(
            ("Instruction: Name the team.\nAnswers: Juventus, Milan", "Look for the towns that are named."),
            (
                f"Instruction: Guess the month.\n{field}: Snow fell.\nAnswer: January",
                "Look at the weather it tells of.",
            ),
        ),
    )


def _wording(sentence: str) -> Form:
    kept = " ".join(sentence.split()[:2])
    heads = dict.fromkeys((kept, *_VERBS) if re.fullmatch(r"[\w' -]+", kept) else _VERBS)
    return Form(
        "You say the same in other words.",
        (Part(sentence),),
        lambda chars: Then((words(heads), Exactly(" "), some_words(chars), Exactly("."))),
        shown=(
            ("Write a summary of the text.", "Write in a few words what the text is about."),
            ("Name the team that is meant.", "Say which team the text is about."),
        ),
        chars=90,
    )


def _rule(target: Target, case: Case) -> Form:
    question = 'What does one ask for where the answer is "{}"?'
    shown = (_shown(target, question), f"If the {target.field} asks for a kind of game, answer sports.")
    return Form(
        "You write short rules.",
        (*_examples(target, case), Part(question.format(case.right))),
        lambda chars: Then((Exactly(" "), some_words(chars), Exactly(f", answer {case.right}."))),
        f"If the {target.field} asks for",
        (shown,),
    )


def _rule_of_words(target: Target, case: Case) -> Form:
    question = 'Which word tells that the answer is "{}"?'
    shown = (_shown(target, question), f'If the {target.field} contains "final", answer sports.')
    return Form(
        "You write short rules.",
        (*_examples(target, case), Part(question.format(case.right))),
        lambda chars: Then((words(case.telling), Exactly(f'", answer {case.right}.'))),
        f'If the {target.field} contains "',
        (shown,),
    )


def _open_rule(target: Target, case: Case) -> Form:
    shown = (
        f"{target.field.capitalize()}: Who won the final in 1990?\nAnswer: Germany",
        "a team, answer with its name.",
    )
    return Form(
        "You write short rules.",
        (*_examples(target, case),),
        lambda chars: Then(
            (Exactly(" "), some_words(chars), Exactly(", answer with "), some_words(chars), Exactly("."))
        ),
        f"If the {target.field} asks for",
        ((shown[0], f"If the {target.field} asks for {shown[1]}"),),
    )


def _description(target: Target, case: Case) -> Form:
    question = 'What does the answer "{}" mean?'
    return Form(
        "You explain labels in a few words.",
        (*_examples(target, case), Part(question.format(case.right))),
        lambda chars: Then((Exactly(" "), some_words(chars), Exactly("."))),
        f'"{case.right}" means',
        ((_shown(target, question), '"sports" means games and those who play them.'),),
    )


def _shown(target: Target, question: str) -> str:
    """A request of the same form about another label."""
    field = target.field.capitalize()
    cases = "".join(
        f"{field}: {text}\nAnswer: sports\n" for text in ("The striker scored twice.", "Who won the final?")
    )
    return cases + question.format("sports")


def _examples(target: Target, case: Case) -> list[Part]:
    """Examples with their answers, the first most relevant."""
    field = target.field.capitalize()
    return [
        Part(f"{field}: {_read(example)}\nAnswer: {(example.target or '')[:_INPUT_CHARS]}", 1 / (number + 1))
        for number, example in enumerate(case.examples)
    ]


def _read(example: Example) -> str:
    return " ".join(next(iter(example.inputs.values()), "").split())[:_INPUT_CHARS]
