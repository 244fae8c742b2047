"""One execution laid out as a tree of labelled texts: what each node read, had done, asked for and gave, in order.

It takes a trace with its calls from the store and prints nothing. Texts are cut unless all is wanted.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.cli.remarks import by_step
from engine.cli.terminal import local_time
from engine.records import Call, Passage, Remark, Step
from engine.store.traces import TraceRow

_SHOWN = 160  # characters of a text
_SAID = 320  # of what feedback said
_LINES = 12  # of a block, such as code
_NUMBERS = 4  # choices with their probabilities
_OF_MODELS = ("generate", "score")
_NO_SETTING = ("kind", "prompt")


@dataclass(frozen=True, slots=True)
class Branch:
    """A label, what it says, and what lies below; `heavy` marks a node or one of its steps."""

    label: str
    text: str = ""
    branches: "tuple[Branch, ...]" = ()
    heavy: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """Lays executions out. `calls` are those known, by key; `full` cuts nothing and `prompts` adds every prompt.

    `remarks` are what feedback said about the execution.
    """

    calls: Mapping[str, Call]
    full: bool = False
    prompts: bool = False
    remarks: Sequence[Remark] = ()

    def tree(self, row: TraceRow) -> Branch:
        """The whole execution, its inputs first and its answer and score last; feedback beside what it is about."""
        trace, example = row.trace, row.trace.example
        said = by_step(self.remarks, trace.steps)
        known = {"written": local_time(row.created), "run": row.run, "program": trace.program}
        place = f"{example.id} ({example.origin})" if example.origin else example.id
        end = [Branch("failed", trace.prediction.error)] if trace.prediction.error else []
        return Branch(
            f"trace {row.id}",
            branches=(
                *(Branch(label, text) for label, text in known.items() if text),
                Branch("example", place),
                *(Branch(f"input {name}", self._cut(text)) for name, text in example.inputs.items()),
                *([Branch("accepted", self._cut(" · ".join(example.accepted)))] if example.accepted else []),
                *(self._step(step, {}, said) for step in trace.steps),
                *(end or [Branch("answer", self._cut(trace.prediction.text))]),
                *([] if math.isnan(trace.score) else [Branch("score", f"{trace.score:.4g}")]),
                *self._feedback("", said),
            ),
            heavy=True,
        )

    def _step(
        self, step: Step, above: Mapping[str, str], said: Mapping[str, Sequence[Remark]], before: str = ""
    ) -> Branch:
        """A step; of its inputs, those that are the same as in the step around it are only named."""
        place = f"{before}{step.node}"
        same = [name for name, text in step.inputs.items() if above.get(name) == text and not self.full]
        reads = [Branch(f"reads {name}", self._cut(text)) for name, text in step.inputs.items() if name not in same]
        return Branch(
            step.node,
            "" if step.value is None else f"value {step.value:.4g}",
            (
                *reads,
                *([Branch("reads", f"{', '.join(same)} as above")] if same else []),
                *(self._step(inner, step.inputs, said, f"{place}.") for inner in step.steps),
                *(self._call(key) for key in step.calls),
                *self._numbers(step),
                *(self._passage(rank, passage) for rank, passage in enumerate(step.passages, 1)),
                *(Branch(f"gives {name}", self._cut(text)) for name, text in step.outputs.items()),
                *([Branch("failed", step.error)] if step.error else []),
                *self._feedback(place, said),
            ),
            heavy=True,
        )

    def _feedback(self, place: str, said: Mapping[str, Sequence[Remark]]) -> Iterator[Branch]:
        """What was said about a step, and about which of its fields or parameters."""
        remarks = [self._remark(remark, place) for remark in said.get(place, ())]
        if remarks:
            yield Branch("feedback", branches=tuple(remarks))

    def _remark(self, remark: Remark, place: str) -> Branch:
        about = remark.node.removeprefix(place).lstrip(".")
        number = "" if remark.value is None else f"{remark.value:{'+' if remark.kind == 'attribution' else ''}.4g}"
        text = self._cut(remark.text, _SAID) if remark.text.strip() else ""
        return Branch(f"{remark.kind} on {about}" if about else remark.kind, " · ".join(filter(None, (number, text))))

    def _numbers(self, step: Step) -> Iterator[Branch]:
        """Probabilities, and log-likelihoods where there is nothing better or all is wanted."""
        if step.probabilities:
            ranked = sorted(step.probabilities.items(), key=lambda item: -item[1])
            yield Branch("probabilities", self._some([f"{name} {100 * value:.1f}%" for name, value in ranked]))
        if step.loglikelihoods is not None and (self.full or not step.probabilities):
            yield Branch("log-likelihoods", self._some([f"{value:.4g}" for value in step.loglikelihoods]))

    def _passage(self, rank: int, passage: Passage) -> Branch:
        named = f"{passage.id} {passage.title}".strip()
        return Branch(f"passage {rank}", f"{passage.score:.4g} · {named}: {self._cut(passage.text)}")

    # ── calls ────────────────────────────────────────────────────────────────────────────────────

    def _call(self, key: str) -> Branch:
        call = self.calls.get(key)
        if call is None:
            return Branch("call", f"{key[:10]} is not in this store, or damaged")
        done, request = call.completion, _asked(call)
        of_model = call.kind in _OF_MODELS
        read = f"{done.prompt_tokens:,} tokens read, {done.generated_tokens:,} written, " if of_model else ""
        shown = {} if of_model and not self.full else request
        below = [
            *([Branch("prompt", call.prompt)] if self.prompts and of_model else []),
            *self._data({name: value for name, value in shown.items() if name not in _NO_SETTING}),
            *self._answer(call, request),
        ]
        return Branch(call.kind, f"{read}{done.seconds:.2f} s by {call.model}", tuple(below))

    def _answer(self, call: Call, request: Mapping[str, Any]) -> Iterator[Branch]:
        done = call.completion
        written = request.get("continuations", [])
        if done.error is not None:
            yield Branch("failed", done.error)
        elif done.winner is not None:
            yield Branch("chose", self._cut(written[done.winner]) if done.winner < len(written) else str(done.winner))
        elif done.loglikelihoods is not None:
            ranked = sorted(zip(done.loglikelihoods, written, strict=False), key=lambda pair: -pair[0])
            yield Branch("scored", self._some([f"{self._cut(text).strip()} {value:.4g}" for value, text in ranked]))
        elif done.passages is not None:
            yield Branch("found", f"{len(done.passages)} passage{'s' * (len(done.passages) != 1)}")
        elif call.kind in _OF_MODELS:
            stopped = " (at its cap)" if done.finish == "length" else ""
            yield Branch("wrote", f"{self._block(done.text or '') or '(empty)'}{stopped}")
        else:
            yield from self._data({"result": _parsed(done.text or "")})

    def _data(self, values: Mapping[str, Any]) -> Iterator[Branch]:
        """Values of a request or a result: mappings as branches, long text as a block; empty ones only with all."""
        for name, value in values.items():
            label = " ".join(str(name).split())
            if isinstance(value, str) and label in ("arguments", "inputs"):
                value = _parsed(value)
            if value in ("", None, {}) and not self.full:
                continue
            if isinstance(value, Mapping):
                yield Branch(label, branches=tuple(self._data(value)))
            else:
                plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                yield Branch(label, self._block(plain))

    # ── shortening ───────────────────────────────────────────────────────────────────────────────

    def _cut(self, text: str, shown: int = _SHOWN) -> str:
        """A text as it is, or the beginning of it in one line that shows where lines ended."""
        if self.full or not text.strip():
            return text if text.strip() else "(empty)"
        lines = (" ".join(line.split()) for line in text[: 4 * shown].split("\n"))
        line = " ⏎ ".join(line for line in lines if line)
        whole = len(line) <= shown and len(text) <= 4 * shown
        return line if whole else f"{line[:shown].rstrip(' ⏎')}…"

    def _block(self, text: str) -> str:
        """A text in its own lines, or the first of them, each cut."""
        lines = text.strip("\n").split("\n")
        if self.full or (len(lines) == 1 and len(text) <= _SHOWN):
            return text.strip("\n")
        shown = [line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…" for line in lines[:_LINES]]
        more = len(lines) - _LINES
        return "\n".join([*shown, *([f"… {more} more line{'s' * (more > 1)}"] if more > 0 else [])])

    def _some(self, parts: Sequence[str]) -> str:
        """The first few, and how many more there are."""
        kept = parts if self.full else parts[:_NUMBERS]
        more = len(parts) - len(kept)
        return " · ".join([*kept, *([f"{more} more"] if more else [])])


def _asked(call: Call) -> dict[str, Any]:
    found = _parsed(call.request)
    return found if isinstance(found, dict) else {}


def _parsed(text: str) -> Any:
    """What a text says as JSON, or the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
