"""Code as models write it, and its results as texts: what the layers that run code share."""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from engine.errors import ContentError
from engine.flows import Flow, ask
from engine.program.critique import Gradients
from engine.records import RunPython, Step

OnError = Literal["fail", "text"]

_FENCE = re.compile(r"```[\w+-]*\n(?P<code>.*?)(?:\n```|\Z)", re.DOTALL)
_ASSIGNED = re.compile(r"(?P<name>[^\W\d]\w*)\s*(?::[^=]+)?=(?!=)")
_FUNCTION = re.compile(r"^def (?P<name>\w+)\(\s*\)", re.MULTILINE)


def written_code(text: str) -> str:
    """The code in a reply: its first fenced block, or all of it."""
    fenced = _FENCE.search(text)
    return textwrap.dedent(fenced["code"] if fenced else text).strip()


def with_value(code: str) -> str:
    """Code that ends in a value: of the name its last line assigns to, or of its last function without arguments."""
    lines = code.splitlines()
    last = lines[-1] if lines else ""
    assigned = _ASSIGNED.match(last)
    if assigned:
        return f"{code}\n{assigned['name']}"
    functions = _FUNCTION.findall(code)
    return f"{code}\n{functions[-1]}()" if functions and last[:1].isspace() else code


def run_python(source: str, inputs: Mapping[str, Any], seconds: float) -> Flow[tuple[str | None, str]]:
    """What code gives as text, else None and why: its value, or what it printed where it has none."""
    request = RunPython(source, json.dumps(dict(inputs), ensure_ascii=False, sort_keys=True), seconds)
    completion = yield from ask(request)
    if completion.text is None:
        return None, completion.error or "no answer"
    found = json.loads(completion.text)
    if found["value"] is None:
        return found["printed"].strip() or "None", ""
    return as_text(found["value"]), ""


def check_seconds(seconds: float) -> None:
    """See that a limit of time is one that a run can have.

    Raises:
        ContentError: it is not.
    """
    if not 0.05 <= seconds <= 60:
        raise ContentError(f"seconds: expected 0.05 to 60, found {seconds:g}", ("seconds",))


def blamed(step: Step, what: str, said: Sequence[str], wanted: tuple[str, ...]) -> Gradients:
    """What was said of a result is said of what was run, the step's last input, which alone made it."""
    written = list(step.inputs)[-1]
    gave = step.error or next(iter(step.outputs.values()), "")
    texts = [f"{what} gave {gave[:200]!r}: {text}" for text in said]
    return Gradients(inputs={written: texts} if written in wanted else {})


def as_text(value: Any) -> str:
    """A JSON value as text: a text as it is, anything else as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
