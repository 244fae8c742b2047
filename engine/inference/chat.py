"""Chat templates: a prompt as a list of pieces, each marked as template text or as data.

The template is the model's own, run in jinja2's immutable sandbox over placeholders, so that it never sees the data;
each placeholder is then exchanged for its text. Only template text may become special tokens: what comes from data
cannot forge a turn.
"""

import re
from dataclasses import dataclass
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import ModelError
from engine.records import Chat, Message, Plain, Prompt

_HOLE = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of prompt text; `special` where control tokens are meant as such."""

    text: str
    special: bool


class ChatTemplate:
    """A model's chat template. A model without one gets its turns as plain paragraphs."""

    def __init__(self, source: str | None, bos: str = "", eos: str = "", adds_bos: bool = True) -> None:
        """Compile the template. With `adds_bos` the tokenizer begins every text with `bos`, so prompts leave it out.

        Raises:
            ModelError: the template is not valid jinja2.
        """
        self._bos, self._eos, self._adds_bos = bos, eos, adds_bos
        self._template = None
        if source:
            environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            environment.globals["raise_exception"] = _refuse
            environment.globals["strftime_now"] = lambda form: ""
            try:
                self._template = environment.from_string(source)
            except TemplateError as error:
                raise ModelError(f"the model's chat template is not valid jinja2: {error}") from None

    def pieces(self, prompt: Prompt) -> list[Piece]:
        """The prompt as the model will read it, without the begin-of-text token that the tokenizer adds.

        Raises:
            ModelError: the template refuses these turns.
        """
        if isinstance(prompt, Plain):
            return [Piece(prompt.text, special=False)]
        if self._template is None:
            turns = "\n\n".join(message.text for message in prompt.messages)
            return [Piece(f"{turns}\n\n{prompt.lead}", special=False)]
        rendered = self._render(prompt)
        if self._adds_bos and self._bos and rendered.startswith(self._bos):
            rendered = rendered[len(self._bos) :]
        pieces: list[Piece] = []
        for index, part in enumerate(_HOLE.split(rendered)):
            text = prompt.messages[int(part)].text if index % 2 else part
            if text:
                pieces.append(Piece(text, special=index % 2 == 0))
        return [*pieces, Piece(prompt.lead, special=False)] if prompt.lead else pieces

    def after_reply(self) -> str:
        """What the template writes after a reply; empty where there is no template or it refuses the example."""
        if self._template is None:
            return ""
        try:
            rendered = self._render(Chat((Message("user", "?"), Message("assistant", "!"))))
        except ModelError:
            return ""
        return _HOLE.split(rendered)[-1]

    def _render(self, prompt: Chat) -> str:
        assert self._template is not None  # pieces() has looked
        messages: list[dict[str, Any]] = [
            {"role": message.role, "content": f"\ue000{number}\ue001"} for number, message in enumerate(prompt.messages)
        ]
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=self._bos,
                eos_token=self._eos,
                enable_thinking=False,
            )
        except Exception as error:  # the template is code that came with the model, and may raise anything
            raise ModelError(
                f"the model's chat template refuses this conversation: {error}; try style: plain"
            ) from None


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
