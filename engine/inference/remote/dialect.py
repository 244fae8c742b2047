"""How requests are put to an OpenAI-compatible server, and what its answers mean.

Plain prompts go to /completions, chats to /chat/completions. What a request leaves open (top_k, min_p, penalties) is
the server's own default.

- The `lead` of a chat is sent as a last assistant message, which most servers go on writing. One that begins anew
  repeats it, as the demonstrations do, so it is cut from the front of a reply.
- A request refused with 400 is asked once more in the form that every server knows: no grammar, no template settings,
  the lead as the last line of the user's turn.
- Continuations of a chat are scored after its turns as paragraphs, since its template is out of sight. Without
  likelihoods the model replies once, at temperature 0, and the continuation that it means gets 0 nats, the others -20.
"""

import re
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any

from engine.errors import ModelError
from engine.inference.backend import decided, rounded, score_content
from engine.inference.chat import ChatTemplate
from engine.inference.remote.abilities import CHAT, TEXT, Abilities
from engine.inference.remote.replies import Answer, choice_grammar, chosen, read_answer
from engine.inference.remote.wire import RequestFailed, Wire
from engine.records import Chat, Completion, Generate, Request, Score
from engine.store.keys import seed_of

_OTHERS = -20.0  # nats
_SPARE_TOKENS = 4
_SHOWN = 80  # characters
_SEEDS = 2**31  # some servers keep them in 32 bits with a sign
_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)
_PARAGRAPHS = ChatTemplate(None)


class Dialect:
    """One model on one server, asked in the terms it understands."""

    def __init__(self, wire: Wire, model: str) -> None:
        self._wire, self._model = wire, model
        self.abilities = Abilities(wire, model)

    def content(self, request: Request) -> dict[str, Any]:
        """The request as this server can answer it: all that changes the answer, as plain data.

        Raises:
            ModelError: the server does not say what it can.
        """
        assert isinstance(request, Generate | Score)  # Count never reaches a backend's queue
        content: dict[str, Any] = {"kind": type(request).__name__.lower()}
        if isinstance(request, Score):
            content |= score_content(request)
            content["by"] = "likelihood" if self.abilities.echo else "reply"
            if content["by"] == "likelihood":
                return content | {"prompt": "".join(piece.text for piece in _PARAGRAPHS.pieces(request.prompt))}
            grammar: str | None = choice_grammar(request.continuations)
        else:
            content |= {"max_tokens": request.max_tokens, "stop": list(request.stop), "top_p": request.top_p}
            content |= {"temperature": request.temperature, "sample": request.sample if request.temperature > 0 else 0}
            grammar = request.grammar
        content["grammar"] = grammar if grammar and self.abilities.grammar else None
        if isinstance(request.prompt, Chat):
            turns = [[message.role, message.text] for message in request.prompt.messages]
            return content | {"prompt": turns, "lead": request.prompt.lead}
        text = request.prompt.text
        return content | {"prompt": text if self.abilities.completions else [["user", text]], "lead": ""}

    def answer(self, key: str, request: Request, content: Mapping[str, Any], stopped: Event) -> Completion:
        """Ask, and read the answer.

        Raises:
            ModelError: the server refuses or says nothing usable.
        """
        if isinstance(request, Generate):
            return self._generate(key, request, content, stopped)
        assert isinstance(request, Score)  # as in `content`
        score = self._score_by_likelihood if content["by"] == "likelihood" else self._score_by_reply
        return decided(request, score(key, request, content, stopped))

    def _generate(self, key: str, request: Generate, content: Mapping[str, Any], stopped: Event) -> Completion:
        settings: dict[str, Any] = {"max_tokens": request.max_tokens, "temperature": request.temperature}
        if request.temperature > 0:
            settings |= {"top_p": request.top_p, "seed": seed_of(key) % _SEEDS}
        if request.stop:
            settings["stop"] = list(request.stop)
        answer = self._write(content, settings, stopped)
        return Completion(
            key=key,
            text=_cut(answer.text, content["lead"]),
            finish=answer.finish,
            prompt_tokens=answer.prompt_tokens,
            generated_tokens=answer.generated_tokens,
            computed_tokens=answer.prompt_tokens + answer.generated_tokens,
        )

    def _score_by_likelihood(self, key: str, request: Score, content: Mapping[str, Any], stopped: Event) -> Completion:
        """One echo for each continuation."""
        prompt, answers, sums = content["prompt"], list[Answer](), list[float]()
        for text in _ended(request):
            body = {"prompt": prompt + text, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
            answer = self._ask(TEXT, body, stopped)
            total = answer.logprobs.sum_over(prompt, text)
            if total is None:
                raise ModelError(f"the server's log-probabilities do not cover the choice {text.strip()!r}")
            answers.append(answer)
            sums.append(rounded(total))
        return _scored(key, sums, answers)

    def _score_by_reply(self, key: str, request: Score, content: Mapping[str, Any], stopped: Event) -> Completion:
        longest = max(len(text.encode()) for text in request.continuations)
        settings: dict[str, Any] = {"max_tokens": longest + _SPARE_TOKENS, "temperature": 0.0}
        if request.end:
            settings["stop"] = [request.end]
        answer = self._write(content, settings, stopped)
        reply = _cut(answer.text, content["lead"])
        found = chosen(reply, request.continuations)
        if found is None:
            raise ModelError(
                f"the server gives no likelihoods, and its reply {reply.strip()[:_SHOWN]!r} is none of the choices"
            )
        sums = [0.0 if place == found else _OTHERS for place in range(len(request.continuations))]
        return _scored(key, sums, [answer])

    def _write(self, content: Mapping[str, Any], settings: Mapping[str, Any], stopped: Event) -> Answer:
        """Have the model write, in all terms at first and in the barest where those are refused."""
        path = TEXT if isinstance(content["prompt"], str) else CHAT
        full, bare = ({**settings, **terms} for terms in _terms(content))
        try:
            return self._ask(path, full, stopped)
        except RequestFailed as error:
            if error.status != 400 or bare == full:
                raise
        return self._ask(path, bare, stopped)

    def _ask(self, path: str, body: Mapping[str, Any], stopped: Event) -> Answer:
        return read_answer(self._wire.post(path, {"model": self._model, **body}, stopped), self._wire.url + path)


def readable(content: Mapping[str, Any]) -> str:
    """The prompt of a content, for a person to read."""
    prompt = content["prompt"]
    if isinstance(prompt, str):
        return prompt
    turns = "".join(f"<{role}>\n{text}\n" for role, text in prompt)
    return f"{turns}<assistant>\n{content['lead']}"


def _terms(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a body says of prompt and grammar: in full, and as every server understands it."""
    prompt, lead = content["prompt"], content["lead"]
    guided = {"grammar": content["grammar"]} if content["grammar"] else {}
    if isinstance(prompt, str):
        return {"prompt": prompt, **guided}, {"prompt": prompt}
    turns = [{"role": role, "content": text} for role, text in prompt]
    if not lead:
        bare = turns
    else:
        bare = [*turns[:-1], {**turns[-1], "content": f"{turns[-1]['content']}\n\n{lead}"}]
        turns = [*turns, {"role": "assistant", "content": lead}]
    full = {"messages": turns, "chat_template_kwargs": {"enable_thinking": False}, **guided}
    return full, {"messages": bare}


def _ended(request: Score) -> list[str]:
    """The continuations; one that another starts with has the end of an answer after it (a line's end by default)."""
    texts = request.continuations
    return [
        text + (request.end or "\n") if any(other != text and other.startswith(text) for other in texts) else text
        for text in texts
    ]


def _cut(text: str, lead: str) -> str:
    """A reply without the thoughts and the repeated lead at its front."""
    thought = _THOUGHT.match(text)
    text = text[thought.end() :] if thought else text
    repeated = lead and text.lstrip().casefold().startswith(lead.casefold())
    return text.lstrip()[len(lead) :] if repeated else text


def _scored(key: str, sums: Sequence[float], answers: Sequence[Answer]) -> Completion:
    read, written = (
        sum(answer.prompt_tokens for answer in answers),
        sum(answer.generated_tokens for answer in answers),
    )
    return Completion(
        key=key,
        loglikelihoods=tuple(sums),
        prompt_tokens=read,
        generated_tokens=written,
        computed_tokens=read + written,
    )
