r"""Answers: what a model may write to change parameters, as a grammar, and what is read of it.

An answer is a JSON object that gives variables their new values, as in

    {"answer_instruction": "Look at the last word.", "answer_style": "plain"}

Under the grammar every answer is one that can be read, whatever the model. What was written without a grammar, or was
cut off, is read as far as it is valid.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from engine.errors import ContentError
from engine.feedback.propagation.edits import editable, most_chars, values
from engine.feedback.propagation.variables import Variables
from engine.program.graph import Program
from engine.program.parameters import Number, Parameter, Source, Text
from engine.program.typed.grammar import Either, Exactly, Then, gbnf, optional
from engine.program.typed.json_values import compact
from engine.tasks.textfile import is_whole

_LEAST_CHARS = 12  # of a text that is decoded: a shorter one is seldom meant
_CHARS_PER_TOKEN = 2  # fewer than text has
_PAIR = re.compile(r'[{,]\s*("(?:[^"\\]|\\.)*")\s*:\s*')
_PAIR_END = re.compile(r"\s*(?=[,}])")


def answer_grammar(parameters: Mapping[str, Parameter]) -> str:
    """GBNF of an answer that gives at least one of these parameters, each under its name here, a value it can take.

    Raises:
        ContentError: there are so many that the grammar is too large.
    """
    pairs = [
        Then((Exactly(f"{compact(name)}: "), values(parameter, _LEAST_CHARS).pattern()))
        for name, parameter in parameters.items()
    ]
    later = [optional(Then((Exactly(", "), pair))) for pair in pairs]
    options = tuple(Then((pair, *later[place + 1 :])) for place, pair in enumerate(pairs))
    return gbnf(Then((Exactly("{"), Either(options), Exactly("}"))))


def answer_tokens(parameters: Mapping[str, Parameter]) -> int:
    """How many tokens an answer may take, so that one of full length comes to its end."""
    chars = sum(len(name) + 8 + most_chars(parameter) for name, parameter in parameters.items())
    return 16 + chars // _CHARS_PER_TOKEN


def read_answer(text: str, program: Program, also: Collection[str] = ()) -> dict[str, Any]:
    """The edits in an answer, by the parameters' names in the program, which `program.replace` takes as they are.

    Variables that are unknown or may not be edited, values that a parameter cannot take and those that it has already
    are left out; of two values for one variable the last one counts.
    """
    allowed = editable(program, also)
    named = {variable: name for name, variable in Variables.of(program).parameters.items() if name in allowed}
    edits: dict[str, Any] = {}
    for variable, value in _pairs(text).items():
        name = named.get(variable)
        if name is None:
            continue
        try:
            checked = _checked(allowed[name], value)
        except ContentError:
            continue
        if checked != allowed[name].value:
            edits[name] = checked
    return _together(program, edits)


def _together(program: Program, edits: Mapping[str, Any]) -> dict[str, Any]:
    """The edits that the program takes: all at once, or where it does not, one after another as far as it does."""
    try:
        program.replace(edits)
        return dict(edits)
    except ContentError:
        pass  # values that are right by themselves may not go together
    taken: dict[str, Any] = {}
    for name, value in edits.items():
        try:
            program.replace({**taken, name: value})
        except ContentError:
            continue
        taken[name] = value
    return taken


def _checked(parameter: Parameter, value: Any) -> Any:
    """The value as the parameter takes it.

    Raises:
        ContentError: it takes no such value, or no answer should give it.
    """
    if isinstance(parameter, Text) and isinstance(value, str):
        value = " ".join(value.split())
    if isinstance(parameter, Text | Source) or (isinstance(parameter, Number) and parameter.whole):
        value = values(parameter).read(value)
    try:
        whole = is_whole(compact(value))
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise ContentError("expected plain data")
    return parameter.check(value)


def _pairs(text: str) -> dict[str, Any]:
    """The pairs of the first JSON object in a text, as far as they are whole."""
    decoder = json.JSONDecoder()
    pairs: dict[str, Any] = {}
    place = text.find("{")
    while place >= 0 and (key := _PAIR.match(text, place)):
        try:
            value, end = decoder.raw_decode(text, key.end())
            over = _PAIR_END.match(text, end)
            if over is None:  # a number may have been cut off
                break
            pairs[json.loads(key[1])] = value
            place = over.end()
        except (ValueError, RecursionError):
            break
    return pairs
