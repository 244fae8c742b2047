"""What a backend learns from a model's own chat template: where a text begins, where a reply ends, how it fails."""

import pytest

from engine.errors import ModelError
from engine.inference.chat import ChatTemplate
from engine.records import Chat, Message

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message.role }}<|end|>\n\n"
    "{{ message.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
HELLO = Chat((Message("user", "Hello"),))


def whole(template: ChatTemplate, prompt: Chat = HELLO) -> str:
    return "".join(piece.text for piece in template.pieces(prompt))


def test_a_turn_that_opens_like_the_vocabularys_first_token_keeps_its_opening() -> None:
    """SmolLM2's begin-of-text token is the `<|im_start|>` of its turns, and its tokenizer does not add it."""
    kept = whole(ChatTemplate(CHATML, bos="<|im_start|>", adds_bos=False))
    assert kept == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_begin_of_text_is_left_to_a_tokenizer_that_adds_it() -> None:
    expected = "<|start|>user<|end|>\n\nHello<|eot|><|start|>assistant<|end|>\n\n"
    assert whole(ChatTemplate(LLAMA, bos="<s>")) == expected
    assert whole(ChatTemplate(LLAMA, bos="<s>", adds_bos=False)) == f"<s>{expected}"


@pytest.mark.parametrize(
    ("source", "end"),
    [
        (CHATML, "<|im_end|>"),
        (LLAMA, "<|eot|>"),
        ("{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}", "</s>"),
    ],
)
def test_what_follows_a_reply_begins_with_the_end_of_its_turn(source: str, end: str) -> None:
    assert ChatTemplate(source, bos="<s>", eos="</s>").after_reply().startswith(end)


@pytest.mark.parametrize("source", [None, "{{ raise_exception('one turn only') }}"])
def test_where_no_template_shows_it_nothing_follows_a_reply(source: str | None) -> None:
    assert ChatTemplate(source).after_reply() == ""


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ messages[7].content.upper() }}",
        "{{ messages[0]['content'].index('nothing') }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_template_that_fails_is_a_model_error(source: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate(source).pieces(HELLO)


def test_a_template_that_writes_the_first_turn_twice_shows_both() -> None:
    twice = ChatTemplate("{{ messages[0].content }} and {{ messages[0].content }}")
    assert whole(twice) == "Hello and Hello"
