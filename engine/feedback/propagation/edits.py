"""Edits: which parameters one answer can change, and which values it can give them.

An answer is written under a grammar, so a text is one line of bounded length, and a number one that can be spelled out.
A whole number grows or shrinks at most fourfold at a time: it often stands for work, which a careless answer should not
multiply.
"""

import math
from collections.abc import Collection

from engine.program.graph import Program
from engine.program.parameters import Bias, Choice, Demos, Notes, Number, Parameter, Source, Text
from engine.program.typed import json_values
from engine.program.typed.grammar import LINE, LINES, OneOf, Pattern, Repeat, Then
from engine.program.typed.json_values import Array, Fixed, Integer, Object, Part, String, compact

_TEXT_CHARS, _CODE_CHARS = 300, 1200
_NOTES, _DEMOS = 8, 4
_BIAS_NATS = 20
_TIMES = 4
_INK = OneOf(((0x21, 0x7E), (0xA1, 0x167F), (0x3041, 0xD7FF)))  # no kind of space


def editable(program: Program, also: Collection[str] = ()) -> dict[str, Parameter]:
    """The parameters that one answer can change: texts, code, choices, numbers, and those that are named in `also`.

    How many demonstrations are the nearest is none of them where there is no pool.
    """
    found: dict[str, Parameter] = {}
    parameters = program.parameters
    no_pool = {f"{name.removesuffix('demos')}nearest" for name, one in parameters.items() if _is_set(one)}
    for name, parameter in parameters.items():
        if name in no_pool and name not in also:
            continue
        match parameter:
            case Text() | Source():
                can = True
            case Choice(_, options):
                can = len(options) > 1
            case Number(_, low, high):
                can = math.isfinite(low) and math.isfinite(high) and low < high
            case _:
                can = name in also
        if can:
            found[name] = parameter
    return found


def _is_set(parameter: Parameter) -> bool:
    return isinstance(parameter, Demos) and not parameter.nearest


def limits(parameter: Parameter) -> str:
    """In a few words which values an answer may give a parameter."""
    match parameter:
        case Text():
            return f"text of at most {_written_chars(parameter)} characters"
        case Source():
            return f"Python code of at most {_written_chars(parameter)} characters"
        case Choice(_, options):
            return " or ".join(map(compact, options))
        case Number():
            low, high = _reach(parameter)
            return f"{'whole ' * parameter.whole}number from {low:g} to {high:g}"
        case Notes(_, most):
            return f"list of at most {min(most, _NOTES)} texts"
        case Bias(_, choices):
            return f"list of numbers, one each for {', '.join(choices)}"
        case Demos():
            return f"list of at most {_DEMOS} solved examples"


def values(parameter: Parameter, least_chars: int = 1) -> Part:
    """The JSON values that one answer may give a parameter, all of which it can take.

    Texts and code have at least `least_chars` characters where they may have as many.
    """
    match parameter:
        case Text():
            return String(form=_written(LINE, _written_chars(parameter), least_chars))
        case Source():
            return String(form=_written(LINES, _written_chars(parameter), least_chars))
        case Choice(_, options):
            return Fixed(options)
        case Number():
            return _number(*_reach(parameter), parameter.whole)
        case Notes(_, most, chars):
            return Array(String(form=_written(LINE, min(chars, _TEXT_CHARS))), 1, min(most, _NOTES))
        case Bias(_, choices):
            return Array(json_values.Number(-_BIAS_NATS, _BIAS_NATS), len(choices), len(choices))
        case Demos(_, inputs, outputs, typed):
            forms = {field.name: field.type.pattern() for field in typed}
            line = _written(LINE, _TEXT_CHARS)
            sides = {"inputs": inputs, "outputs": outputs}
            fields = {
                side: Object(tuple((name, String(form=forms.get(name, line)), True) for name in names))
                for side, names in sides.items()
            }
            return Array(Object(tuple((side, part, True) for side, part in fields.items())), 1, _DEMOS)


def most_chars(parameter: Parameter) -> int:
    """How long a value in an answer may become, about."""
    match parameter:
        case Text() | Source():
            return _written_chars(parameter)
        case Choice(_, options):
            return max(map(len, options))
        case Number():
            return 12
        case Notes(_, most):
            return _TEXT_CHARS * min(most, _NOTES)
        case Bias(_, choices):
            return 12 * len(choices)
        case Demos(_, inputs, outputs):
            return _TEXT_CHARS * _DEMOS * (len(inputs) + len(outputs))


def _reach(parameter: Number) -> tuple[float, float]:
    """The lowest and highest value that one answer may give a number."""
    if not parameter.whole or parameter.value < 0:
        return parameter.low, parameter.high
    return max(parameter.low, parameter.value // _TIMES), min(parameter.high, max(1, parameter.value) * _TIMES)


def _number(low: float, high: float, whole: bool) -> Part:
    """Whole numbers; decimals between whole limits; else round numbers, a tenth to a hundredth of the range apart."""
    if whole:
        return Integer(math.ceil(low), math.floor(high))
    if float(low).is_integer() and float(high).is_integer():
        return json_values.Number(low, high)
    digits = 1 - math.floor(math.log10(high - low))
    first, last = math.ceil(low * 10.0**digits), math.floor(high * 10.0**digits)
    found = [round(step / 10.0**digits, max(0, digits)) for step in range(first, last + 1)]
    return Fixed(tuple(number for number in found if low <= number <= high))


def _written(character: OneOf, most: int, least: int = 1) -> Pattern:
    """A text that is not blank."""
    return Then((_INK, Repeat(character, min(least, most) - 1, most - 1))) if most > 1 else _INK


def _written_chars(parameter: Text | Source) -> int:
    return min(parameter.max_chars, _TEXT_CHARS if isinstance(parameter, Text) else _CODE_CHARS)
