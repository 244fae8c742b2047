"""Packing and aggregation: what is kept of what is said, counted exactly."""

from collections.abc import Callable, Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from engine.feedback.aggregation import Critique, aggregated
from engine.feedback.packing import Packed, Part, fitted, packed
from engine.flows import Flow
from engine.inference.runtime import Runtime
from engine.inference.scripted import ScriptedBackend, keyword_script
from engine.records import Chat, Completion, Count, Feedback, Message, Plain, Prompt
from engine.store.keys import seed_of
from engine.store.store import Store

FRAME = "Read this:"


def render(parts: Sequence[Part]) -> Prompt:
    return Plain("\n".join([FRAME, *(part.text for part in parts)]))


def length(prompt: Prompt) -> int:
    """Characters, less some that depend on the text: as with tokens, a longer text may count less."""
    assert isinstance(prompt, Plain)
    return len(prompt.text) - seed_of(prompt.text, 0) % 4


def counted(flow: Flow[Packed], count: Callable[[Prompt], int]) -> tuple[Packed, int]:
    """What a flow that asks for nothing but counts comes to, and how many it asked for."""
    asked = 0
    result = None
    while True:
        try:
            effect = flow.send(result)
        except StopIteration as stop:
            return stop.value, asked
        assert isinstance(effect, Count)
        assert effect.role == "optimizer"
        asked += 1
        result = Completion(count=count(effect.prompt))


def text_of(packing: Packed) -> str:
    assert isinstance(packing.prompt, Plain)
    return packing.prompt.text


PARTS = st.lists(
    st.builds(
        Part,
        st.text("ab \n.", min_size=1, max_size=30),
        st.one_of(st.none(), st.integers(0, 3).map(float)),
        st.sampled_from(["", "…"]),
    ),
    max_size=9,
)


@given(PARTS, st.integers(0, 250))
@example([Part("a" * 30), Part("b" * 30)], 40)
@example([Part("a" * 30, 1.0)], 12)
def test_what_is_kept_fits_and_the_next_part_or_character_would_not(parts: list[Part], room: int) -> None:
    packing, asked = counted(fitted(parts, room, render), length)
    assert packing.tokens == length(packing.prompt)
    must = [place for place, part in enumerate(parts) if part.relevance is None]
    by_relevance = sorted(set(range(len(parts))) - set(must), key=lambda place: (-(parts[place].relevance or 0), place))

    def made(count: int, chars: int | None = None) -> Prompt:
        kept = {*must, *by_relevance[:count]}
        shown = [part.text if place in kept else part.instead for place, part in enumerate(parts)]
        return render([Part(text[:chars]) for text in shown if text[:chars]])

    def fits(prompt: Prompt) -> bool:
        return length(prompt) <= room

    count = len(packing.kept) - len(must)
    longest = max((len(part.instead if part.relevance is not None else part.text) for part in parts), default=0)
    assert packing.kept == tuple(sorted({*must, *by_relevance[:count]}))
    assert asked <= 3 + max(len(by_relevance), longest).bit_length()
    if fits(made(len(by_relevance))):
        assert packing.prompt == made(len(by_relevance))
    elif fits(made(0)):
        assert packing.prompt == made(count)
        assert fits(packing.prompt)
        assert not fits(made(count + 1))
    elif fits(made(0, 0)):
        assert fits(packing.prompt)
        assert any(packing.prompt == made(0, chars) and not fits(made(0, chars + 1)) for chars in range(longest))
    else:
        assert packing.prompt == render([])


@given(PARTS, st.integers(0, 250))
def test_the_order_of_the_parts_is_kept(parts: list[Part], room: int) -> None:
    numbered = [Part(f"{place}{part.text}", part.relevance) for place, part in enumerate(parts)]
    packing, _ = counted(fitted(numbered, room, render), length)
    assert list(packing.kept) == sorted(packing.kept)
    starts = [line[0] for line in text_of(packing).split("\n")[1:] if line[:1].isdigit()]
    assert starts == sorted(starts)


def test_where_everything_fits_one_count_is_made() -> None:
    packing, asked = counted(fitted([Part("a"), Part("b", 1.0)], 100, render), length)
    assert (asked, packing.kept, text_of(packing)) == (1, (0, 1), "Read this:\na\nb")


def test_the_least_relevant_part_goes_first_and_of_equals_the_later() -> None:
    parts = [Part("low", 0.0), Part("must"), Part("high", 2.0), Part("middle", 1.0), Part("middling", 1.0)]

    def words(prompt: Prompt) -> int:
        assert isinstance(prompt, Plain)
        return len(prompt.text.split())

    kept = [counted(fitted(parts, room, render), words)[0].kept for room in range(3, 8)]
    assert kept == [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (0, 1, 2, 3, 4)]


def test_what_must_stay_is_cut_to_one_length_the_longest_first() -> None:
    def characters(prompt: Prompt) -> int:
        assert isinstance(prompt, Plain)
        return len(prompt.text)

    packing, _ = counted(fitted([Part("a" * 9), Part("short"), Part("gone", 1.0)], 24, render), characters)
    assert text_of(packing) == "Read this:\naaaaaaa\nshort"
    assert packing.kept == (0, 1)


def test_a_prompt_of_turns_is_counted_as_the_model_will_read_it() -> None:
    def chat(parts: Sequence[Part]) -> Prompt:
        return Chat((Message("system", "You sum up."), Message("user", " ".join(part.text for part in parts))))

    with Runtime({"task": ScriptedBackend(keyword_script)}, Store(":memory:")) as runtime:
        parts = [Part("one two"), Part("three four", 1.0), Part("five", 1.0)]
        packing = runtime.run(fitted(parts, 10, chat))
        assert packing.tokens == runtime.backend("optimizer").count(packing.prompt) == 10
        assert packing.kept == (0, 1)
        assert runtime.run(packed(parts, 10, chat)) == packing.prompt


# ── aggregation ──────────────────────────────────────────────────────────────────────────────────


def feedback(texts: Sequence[str], room: int = 256) -> Feedback:
    critiques = [Critique(str(number), text) for number, text in enumerate(texts)]
    with Runtime({"task": ScriptedBackend(keyword_script)}, Store(":memory:")) as runtime:
        return runtime.run(aggregated("answer.instruction", critiques, room))


def test_critiques_are_counted_the_most_frequent_first_then_in_the_order_they_were_said() -> None:
    told = feedback(["Name the unit.", "Be brief.", "Say why.", "Be brief.", "Say why.", "be brief"])
    assert told.text == "- Be brief. (3 times)\n- Say why. (2 times)\n- Name the unit."
    assert told.examples == ("0", "1", "2", "3", "4", "5")


def test_nearly_the_same_critique_is_the_same_unless_a_number_a_quotation_or_a_negation_differs() -> None:
    long = "The instruction should ask the model to name the colour of the thing that the text is about"
    assert feedback([f"{long}.", f"{long}, please."]).text == f"- {long}. (2 times)"
    for other in (
        f"{long} in 3 words.",
        f'{long} as "red".',
        long.replace("should", "should not"),
        "The instruction should ask for a shape.",
    ):
        assert feedback([f"{long}.", other]).text == f"- {long}.\n- {other}"
    assert feedback([f"Say {one} of the two." for one in ('"red"', '"blue"')]).text.count("\n") == 1
    assert feedback(["???", "!!!", "更加简短。", "更加清楚。"]).text.count("\n") == 3, "no words to compare by"


def test_feedback_keeps_to_its_room_and_names_the_examples_of_what_it_tells() -> None:
    told = feedback(["Name the unit.", "Be brief.", "Say why.", "Be brief."], room=9)
    assert told == Feedback("answer.instruction", "- Be brief. (2 times)\n- Name the unit.", ("0", "1", "3"))
    assert feedback(["One two three four five."], room=3).text == "- One two "


@given(st.lists(st.text("ab1. ", min_size=1), min_size=1, max_size=12), st.integers(3, 60))
def test_feedback_never_exceeds_its_room(texts: list[str], room: int) -> None:
    flow = aggregated("answer.instruction", [Critique("1", text) for text in texts], room)
    told, _ = counted(flow, lambda prompt: len(prompt.text))  # type: ignore[arg-type,union-attr]
    assert len(told.text) <= room  # type: ignore[attr-defined]
    assert told.text.startswith("- ")  # type: ignore[attr-defined]
