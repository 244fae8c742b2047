"""self_discover: an instruction with the steps that a task of this kind is solved in (Self-Discover; Zhou 2024).

Three stages, once a task and not once an example, from the task's instruction and a few inputs without their answers:

    select      the kinds of reasoning, of a list, that suit the task best
    adapt       each of them said so that it fits the task
    implement   a plan of three short steps made of them, which is put behind the instruction

The reasoning needs room, so this is for open answers. Where the program's answer is a closed choice, it is for a node
or a part before it that writes openly; the program is not changed otherwise. Steps of an earlier play are replaced.

Deviations: a kind of reasoning is selected not by asking for a list but by how much likelier the task makes its words
(domain conditional PMI; Holtzman 2021, section 3), which takes two calls and leaves nothing to parse; three are. A plan
is a numbered list under a grammar in place of keys in JSON. The list of kinds is our own. Requests show solved ones of
other tasks. Several plans are proposed, of different adaptations.
"""

from numpy.random import Generator

from engine.feedback.packing import Part
from engine.flows import Flow, ask, together
from engine.optim.history import History, Proposal
from engine.optim.words.texts import fits, next_text, texts_of
from engine.optim.words.variants import alike_but_for
from engine.optim.words.writing import Brief, particular, written
from engine.program.event import one_line
from engine.program.graph import Program
from engine.program.layers import Predict
from engine.program.places import place_of
from engine.program.prompt import label
from engine.program.typed.grammar import LINE, Exactly, OneOf, Pattern, Repeat, Then
from engine.records import Plain, Score

_SELECTED = 3
_PLANS = 4
_EXAMPLES = 2
_CHARS = 200
_STEP_CHARS = 100
_INTRODUCED = "\nFollow these steps:\n1. "

# Our wording of widely known kinds of reasoning, in the order in which one goes about a task; the paper lists 39.
_KINDS = (
    "Say what is asked for.",
    "Say what the important words mean.",
    "List the facts that are given.",
    "Look for evidence in the text.",
    "Find the assumptions that are made.",
    "Make the problem simpler.",
    "Think of a similar problem.",
    "Break the problem into smaller parts.",
    "Find the rule that applies.",
    "List the possible answers and rule out the wrong ones.",
    "Think step by step.",
    "Calculate with the numbers that are given.",
    "Work backwards from the answer.",
    "Look at it from another side.",
    "Think of an unusual idea.",
    "Check the answer.",
)


class SelfDiscoverProposer:
    """Proposes up to four plans for one instruction."""

    name = "self_discover"
    prior = 0.01

    def suits(self, program: Program) -> bool:
        """Whether an answer, or something written on the way to it, is open: a closed choice has no room to reason."""
        return bool(_open(program))

    def propose(self, history: History, rng: Generator) -> Flow[list[Proposal]]:
        """The instruction with each of the plans."""
        names = _open(history.program)
        if not names:
            return []
        name = next_text(history, self.name, names, rng)
        parameter = texts_of(history.program)[name]
        instruction = parameter.value.partition(_INTRODUCED)[0]
        task = f"Task: {one_line(instruction, _CHARS)}"
        inputs = _inputs(history, rng)
        about = f"{task}\n{inputs}"
        selected = yield from _selected(about)
        adapted = yield from together(
            [
                written(history, _adapt(about, kind), _PLANS, generator)
                for kind, generator in zip(selected, rng.spawn(len(selected)), strict=True)
            ]
        )
        fitting = [[text for text in texts if not particular(text, inputs)] for texts in adapted]
        advice = [texts or [kind] for texts, kind in zip(fitting, selected, strict=True)]
        sets = [" ".join(texts[number % len(texts)] for texts in advice) for number in range(_PLANS)] if advice else []
        plans = yield from together(
            [
                written(history, _implement(task, said), 1, generator)
                for said, generator in zip(sets, rng.spawn(len(sets)), strict=True)
            ]
        )
        found = dict.fromkeys(
            f"{instruction}{_INTRODUCED}{plan}" for texts in plans for plan in texts if not particular(plan, inputs)
        )
        tried = alike_but_for(history, history.program, name)
        new = [text for text in found if fits(parameter, text) and text not in tried]
        return [Proposal({name: text}, f"{name} with steps: 1. {text.partition(_INTRODUCED)[2]}") for text in new]


def _open(program: Program) -> list[str]:
    """The instructions under which something is written that is, at least in one field, text."""
    layers = {name: place_of(program, name).layer for name in texts_of(program)}
    return [
        name
        for name, layer in layers.items()
        if isinstance(layer, Predict) and not layer.choices and any(field.is_text for field in layer.fields)
    ]


def _inputs(history: History, rng: Generator) -> str:
    """A few train examples without their answers."""
    drawn = [history.train[int(index)] for index in rng.permutation(len(history.train))[:_EXAMPLES]]
    fields = [field for example in drawn for field in example.inputs.items()]
    return "\n".join(f"{label(name)}: {one_line(text, _CHARS)}" for name, text in fields)


def _selected(task: str) -> Flow[list[str]]:
    """The kinds of reasoning whose words the task makes likelier by the most, in the order of the list."""
    prompts = [Plain(f"{about}\n\nHow to solve such a task:") for about in (task, "Task: N/A")]
    words = tuple(f" {kind}" for kind in _KINDS)
    given, alone = yield from together([ask(Score(prompt, words, "\n", role="optimizer")) for prompt in prompts])
    if given.loglikelihoods is None or alone.loglikelihoods is None:
        return []
    gains = [one - other for one, other in zip(given.loglikelihoods, alone.loglikelihoods, strict=True)]
    best = sorted(range(len(_KINDS)), key=lambda index: (-gains[index], index))[:_SELECTED]
    return [_KINDS[index] for index in sorted(best)]


def _adapt(task: str, kind: str) -> Brief:
    def asked(about: str, advice: str) -> str:
        return f"{about}\nGeneral advice: {advice}\nAdvice for this task:"

    return Brief(
        "General advice is made to fit a task.",
        (Part(asked(task, kind)),),
        most_chars=_STEP_CHARS,
        most_tokens=32,
        shown=tuple((asked(f"Task: {other}", advice), fitted) for other, advice, fitted in _ADAPTED),
        plain=True,
    )


def _implement(task: str, advice: str) -> Brief:
    def asked(about: str, said: str) -> str:
        return f"{about}\nAdvice: {said}\nPlan:\n1."

    return Brief(
        "Tasks, and for each of them a plan of three short steps.",
        (Part(asked(task, advice)),),
        most_tokens=96,
        shown=tuple((asked(f"Task: {other}", said), plan) for other, said, plan in _PLANNED),
        plain=True,
        form=_PLAN,
    )


_STEP = Then((OneOf(((0x41, 0x5A),)), Repeat(LINE, 8, _STEP_CHARS), Exactly(".")))
_PLAN: Pattern = Then((_STEP, Exactly("\n2. "), _STEP, Exactly("\n3. "), _STEP))

_POEM, _RUNNER = "Write a short poem about the season.", "Say which of the two animals is faster."
_ADAPTED = (
    (_POEM, "List the facts that are given.", "List what you see, hear and smell in this season."),
    (_RUNNER, "Think of a similar problem.", "Think of animals that you know and how fast they run."),
)
_PLANNED = (
    (
        _POEM,
        "List what you see, hear and smell in this season. Choose words that rhyme. Check the rhythm.",
        "Note what you see, hear and smell in the season.\n2. Choose words for it that rhyme.\n"
        "3. Write the lines and read them aloud.",
    ),
    (
        _RUNNER,
        "Think of animals that you know and how fast they run. Compare the two.",
        "Recall how fast the first animal runs.\n2. Recall how fast the second animal runs.\n"
        "3. Compare the two and name the faster one.",
    ),
)
