"""Typed edits: texts are taken apart without loss, each operator makes its one edit, the best of them are proposed."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng
from support_optim import COLOURS, closed_program, history_of, open_program, proposed, rows, runtime_of

from engine import Input, Program, open_runtime
from engine.inference.scripted import Answer, Script
from engine.optim.edits.cases import Case, cases_of, names_one_example, telling_words
from engine.optim.edits.choosing import operator_of, playing
from engine.optim.edits.operators import FORMATS, OPERATORS, Target, derived, described, targets
from engine.optim.edits.slots import forms
from engine.optim.history import Candidate
from engine.optim.proposers.typed_edits import TypedEditsProposer
from engine.optim.words.filling import Form, filled, some_words
from engine.program.layers import Predict
from engine.program.parameters import Demo
from engine.program.sentences import inserted, joined, moved, replaced, split, without
from engine.program.typed.grammar import gbnf, matches
from engine.records import Example, Generate, Request, Score

TRAIN = rows(60)
THREE = "Name the colour. Look at the end! Be quick."

# ── sentences ────────────────────────────────────────────────────────────────────────────────────


@given(st.one_of(st.text(), st.text(alphabet=' \n.!?"1ae.。')))
def test_a_text_is_split_and_joined_without_loss(text: str) -> None:
    sentences = split(text)
    assert joined(sentences) == text
    assert all(one.words == one.words.strip() and not one.gap.strip() for one in sentences)
    assert all(one.words for one in sentences[1:])


@given(st.text(alphabet=" \n.Aa1"), st.data())
def test_edits_of_sentences_leave_the_others_as_they_are(text: str, data: st.DataObject) -> None:
    sentences = split(text)
    said = [one.words for one in sentences]
    place = data.draw(st.integers(0, len(sentences)))
    grown = inserted(sentences, place, "New.")
    assert [one.words for one in grown] == [*said[:place], "New.", *said[place:]]
    assert joined(without(grown, place)).split() == text.split()
    if sentences:
        at, to = data.draw(st.integers(0, len(said) - 1)), data.draw(st.integers(0, len(said) - 1))
        others = [*said[:at], *said[at + 1 :]]
        assert [one.words for one in moved(sentences, at, to)] == [*others[:to], said[at], *others[to:]]
        assert [one.words for one in replaced(sentences, at, "X.")] == [*said[:at], "X.", *said[at + 1 :]]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (THREE, ["Name the colour.", "Look at the end!", "Be quick."]),
        (
            "Use short words, e.g. red. 1. Read it. It is 3.5 m.",
            ["Use short words, e.g. red.", "1. Read it.", "It is 3.5 m."],
        ),
        ("First line\nSecond. line\n\n- item", ["First line", "Second. line", "- item"]),
        ('Say "yes." Then stop', ['Say "yes."', "Then stop"]),
        ("读问题。写答案！", ["读问题。", "写答案！"]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, sentences: list[str]) -> None:
    assert [one.words for one in split(text)] == sentences


def test_what_is_added_to_lines_is_a_line() -> None:
    assert joined(inserted(split("Read.\nWrite.\n"), 2, "Stop.")) == "Read.\nWrite.\nStop.\n"
    assert joined(inserted(split("Read. Write."), 0, "Look.")) == "Look. Read. Write."
    assert joined(without(split("Read. Write.\n"), 1)) == "Read.\n"


# ── operators ────────────────────────────────────────────────────────────────────────────────────

DEMOS = tuple(Demo({"text": colour}, {"colour": colour}) for colour in COLOURS)


def target(text: str = THREE, demos: tuple[Demo, ...] = DEMOS) -> Target:
    layer = Predict(text, output="colour", choices=COLOURS, demos=demos)
    (found,) = targets(Program(layer(Input("text"))))
    return found


MADE = {
    "add_sentence": ("Look up.", [f"{THREE} Look up."]),
    "add_rule": ('If the text contains "sky", answer blue.', [f'{THREE} If the text contains "sky", answer blue.']),
    "describe_label": ('"red" means warm.', [f'{THREE} "red" means warm.']),
    "delete_sentence": (
        "",
        ["Look at the end! Be quick.", "Name the colour. Be quick.", "Name the colour. Look at the end!"],
    ),
    "replace_sentence": (
        "Say it.",
        [
            "Say it. Look at the end! Be quick.",
            "Name the colour. Say it. Be quick.",
            "Name the colour. Look at the end! Say it.",
        ],
    ),
    "move_sentence": (
        "",
        ["Look at the end! Name the colour. Be quick.", "Be quick. Name the colour. Look at the end!"],
    ),
    "change_format": ("", [f"{THREE} {line}" for line in FORMATS]),
    "reorder_demos": ("", [(*DEMOS[1:], DEMOS[0]), (DEMOS[0], DEMOS[2], DEMOS[1])]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_makes_its_edit_and_is_told_by_it(name: str) -> None:
    filling, values = MADE[name]
    operator, before = OPERATORS[name], target()
    edits = [operator.edit(before, place, filling) for place in operator.places(before)]
    assert [edit.value for edit in edits] == values
    for edit in edits:
        after = (
            target(demos=edit.value)
            if isinstance(edit.value, tuple)
            else replace(before, text=replace(before.text, value=edit.value))
        )
        assert edit.parameter == ("colour.demos" if name == "reorder_demos" else "colour.instruction")
        assert derived(before, after) == name


def test_a_label_is_described_once_and_a_format_stands_once() -> None:
    known = target(f'"red" means warm. {FORMATS[0]}', demos=())
    assert described(known.text.value) == {"red": 0}
    redone = OPERATORS["describe_label"].edit(known, 2, '"red" means hot.')
    assert redone.value == f'"red" means hot. {FORMATS[0]}'
    other = OPERATORS["change_format"].edit(known, 1)
    assert other.value == f'"red" means warm. {FORMATS[1]}'
    assert derived(known, target(str(other.value), demos=())) == "change_format"
    assert list(OPERATORS["change_format"].places(known)) == [1, 2, 3]
    assert list(OPERATORS["replace_sentence"].places(known)) == [], (
        "neither a description nor a format is said otherwise"
    )


def test_operators_apply_only_where_they_can() -> None:
    one = target("Name it.", demos=DEMOS[:1])
    names = [name for name, operator in OPERATORS.items() if operator.places(one)]
    assert names == ["describe_label", "add_rule", "add_sentence", "replace_sentence", "change_format"]
    hint, answer = targets(open_program())
    assert (hint.name, hint.field, hint.labels) == ("hint.instruction", "text", ())
    assert (answer.name, answer.field) == ("colour.instruction", "text")
    assert not OPERATORS["describe_label"].places(hint)
    pool = Program(Predict("Say.", output="colour", demos=DEMOS, nearest=2)(Input("text")))
    assert targets(pool)[0].demos == (), "the order of a pool is each example's own"


# ── slots ────────────────────────────────────────────────────────────────────────────────────────


def test_words_that_tell_a_label_are_found_and_those_of_one_row_are_noticed() -> None:
    reds = [Example(f"r{n}", {"text": f"a fire number{n} is hot"}, ("red",)) for n in range(4)]
    blues = [Example(f"b{n}", {"text": f"a sea is wide{n}"}, ("blue",)) for n in range(4)]
    assert telling_words(reds, blues) == ("fire", "hot", "number")
    first, second, *rest = cases_of(target(), [*reds, *blues], [blues[0], reds[0], reds[1]], 3, default_rng(0))
    assert (first.right, second.right, rest) == ("red", "blue", []), "most missed first; green has no row"
    assert first.examples[:2] == (reds[0], reds[1])
    odd = Case("red", tuple(reds), (), ("avocado",))
    assert names_one_example("Think of the Avocado.", odd)
    assert not names_one_example("Think of the fire.", odd)


def test_every_form_shows_an_answer_that_keeps_to_it_and_opens_with_its_lead() -> None:
    case = Case("red", tuple(TRAIN[:2]), ("final", "fire"))
    for slot, spot in itertools.product(
        ("sentence", "wording", "rule", "description"), (target(), targets(open_program())[0])
    ):
        if slot == "description" and not spot.labels:
            continue
        for form in forms(slot, spot, case, 0):
            gbnf(form.pattern(form.chars))
            shown = [answered.replace("sports", "red") for _, answered in form.shown]
            assert shown
            heads = ("Write in",) if slot == "wording" else ()
            for answered in shown:
                if not answered.startswith(heads or ("\0",)):
                    assert answered.startswith(form.lead)
                    assert matches(form.pattern(form.chars), answered.removeprefix(form.lead))


def test_what_does_not_keep_to_its_form_is_dropped() -> None:
    case = Case("red", tuple(TRAIN[:2]), ("fire", "hot"))
    named = forms("rule", target(), case, 0)[1]
    answers = ['fire", answer red.', 'sea", answer red.', 'fire", answer blue.', 'hot", answer red.\n', "", "fire"]
    advice = forms("sentence", target(), case, 0)[0]
    said = [
        "Look at the towns that are named.",
        "Look at the end.",
        f"Look at the {'a' * 59}.",
        f"Look at the {'a' * 60}.",
    ]

    def kept(form: Form, answers: Sequence[str]) -> list[str]:
        def script(request: Request, prompt: str) -> Answer:
            assert isinstance(request, Generate)
            return answers[request.sample % len(answers)]

        with runtime_of(script) as runtime:
            asked = filled(history_of(closed_program(), TRAIN), form, len(answers), default_rng(0))
            return sorted(runtime.run(asked))

    assert kept(named, answers) == [f'If the text contains "{word}", answer red.' for word in ("fire", "hot")]
    assert kept(advice, said) == [f"Look at the {'a' * 59}.", "Look at the end."], "neither copied nor cut off"


@given(st.text(alphabet="ab Z9-é.,\n"))
def test_free_words_hold_no_mark_that_could_end_them(text: str) -> None:
    allowed = len(text) <= 20 and len(text) > 2 and text[0].isalpha() and not any(sign in text for sign in ".,\n")
    assert matches(some_words(20), text) == allowed


# ── the proposer ─────────────────────────────────────────────────────────────────────────────────


def liking(*good: str, bad: str = "\0") -> Script:
    """A model that is surer of the last word the more of some texts stand in its instruction, and writes in form."""

    def script(request: Request, prompt: str) -> Answer:
        if isinstance(request, Score):
            last = prompt.rstrip().split("\n")[-2]
            sure = 0.2 + sum(text in prompt for text in good) - 2 * (bad in prompt)
            return [sure if word.strip() in last else 0.0 for word in request.continuations]
        assert isinstance(request, Generate)
        if "You explain" in prompt:
            return f" a colour like {prompt.rpartition('Answer: ')[2].split()[0]}."
        if "You say" in prompt:
            return "Say which colour it is."
        if "You write" in prompt:
            return (
                'is", answer red.'
                if 'contains "' in prompt.rpartition("<assistant>")[2]
                else " something warm, answer red."
            )
        return "Look at the end."

    return script


def test_harmful_sentences_are_left_out_and_what_helps_is_added_together() -> None:
    program = closed_program().replace({"colour.instruction": "Name the colour. Be wrong. Be quick."})
    run = history_of(program, TRAIN, allowance_calls=700, calibrates=False)
    values = [
        str(proposal.edits.get("colour.instruction"))
        for seed in range(7)
        for proposal in proposed(
            TypedEditsProposer(), run, liking("Look at the end.", "a colour like", bad="Be wrong."), seed
        )
    ]
    assert "Name the colour. Be quick." in values
    assert any("Be wrong." in value and "Look at the end." in value and "a colour like" in value for value in values)
    assert all("Be wrong." not in value or "Look at" in value or "a colour like" in value for value in values)


def test_nothing_is_proposed_that_train_does_not_like() -> None:
    run = history_of(closed_program(), TRAIN, allowance_calls=700, calibrates=False)
    assert all(proposed(TypedEditsProposer(), run, liking(), seed) == [] for seed in range(3))


def test_too_small_an_allowance_gives_unmeasured_edits() -> None:
    run = history_of(closed_program(), TRAIN, allowance_calls=40)
    assert 0 < len(proposed(TypedEditsProposer(), run, liking())) <= 3


def candidate(number: int, edits: dict[str, str], gain: float) -> Candidate:
    program = closed_program().replace(edits)
    return Candidate(number, program, (), 1, "typed_edits", "", 0, edits, gain=gain)


def test_operators_play_by_the_upper_bound_of_what_they_have_won() -> None:
    start = "Name the colour."
    tried = [
        (f"{start} Look up.", 0.1),
        (f"{start} Look down.", 0.0),
        ("Say it.", 0.0),
        ("Tell it.", 0.0),
        ("Speak.", 0.0),
        (f'{start} "red" means warm.', 0.2),
        (f'{start} If the text asks for warmth, answer red.', 0.0),
    ]  # fmt: skip
    others = [candidate(n, {"colour.instruction": text}, gain) for n, (text, gain) in enumerate(tried, 1)]
    run = history_of(closed_program(), TRAIN, others=others)
    spot = targets(run.program)[0]
    names = ["add_sentence"] * 2 + ["replace_sentence"] * 3 + ["describe_label", "add_rule"]
    assert [operator_of(run, one) for one in others] == names
    order = [operator.name for operator in playing(run, "typed_edits", spot, 8, default_rng(0))]
    bounds = {
        name: sum(gain > 0 for (_, gain), made in zip(tried, names, strict=True) if made == name) / names.count(name)
        + math.sqrt(2 * math.log(7) / names.count(name))
        for name in dict.fromkeys(names)
    }
    assert order == ["change_format", *sorted(bounds, key=lambda name: -bounds[name])], "what was never tried is first"
    assert len(playing(run, "typed_edits", spot, 2, default_rng(0))) == 2


@pytest.mark.model
def test_the_real_model_fills_every_slot_in_form() -> None:
    spot = target("Name the colour that the text ends with.", demos=())
    case = Case("red", tuple(row for row in TRAIN if row.target == "red")[:4], ("thing",))
    run = history_of(closed_program(), TRAIN, allowance_calls=300)
    with open_runtime("smollm2-135m", store=":memory:") as runtime:
        for slot in ("sentence", "wording", "rule", "description"):
            for form in forms(slot, spot, case, 0):
                texts = runtime.run(filled(run, form, 3, default_rng(0)))
                assert all(matches(form.pattern(form.chars), text.removeprefix(form.lead)) for text in texts)
        for proposal in runtime.run(TypedEditsProposer().propose(run, default_rng(0))):
            assert run.program.replace(proposal.edits) != run.program
