"""Sentences come apart and together again without loss."""

from hypothesis import given
from hypothesis import strategies as st

from engine.program.sentences import joined, sentences, without


@given(st.text(st.sampled_from("aA1.!?: \n\"')(-"), max_size=60))
def test_the_sentences_of_a_text_are_the_text(text: str) -> None:
    assert "".join(sentences(text)) == text
    assert all(sentences(text))


def test_where_a_sentence_ends() -> None:
    text = "Read it. Is it 3.5 m long? Say so: Yes or no\n- e.g. this, i.e. that\n\nDone!"
    assert [part.strip() for part in sentences(text)] == [
        "Read it.", "Is it 3.5 m long?", "Say so:", "Yes or no", "- e.g. this, i.e. that", "Done!",
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["Read it.", "Is it long?", "Answer.", "Say 3."]), min_size=2, max_size=6), st.data())
def test_one_sentence_less(parts: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(parts) - 1))
    assert without(" ".join(parts), index) == " ".join(parts[:index] + parts[index + 1 :])


def test_joining_puts_one_space_between() -> None:
    assert joined(["One. ", "Two.", "  ", "Three.\n"]) == "One. Two. Three."
    assert joined([]) == ""
