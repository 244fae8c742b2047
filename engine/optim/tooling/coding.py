"""Coding: asking the optimizer's model for a function in Python, decoded under a grammar that has the shape of one.

    def name(argument: type, …):
        \"\"\"What it does.\"\"\"
        …                              at most so many lines, each indented
        return …

Whether it is Python is seen by reading it; nothing of it is run here.
"""

import ast
from collections.abc import Sequence

from numpy.random import Generator

from engine.errors import ContentError
from engine.feedback.packing import Part
from engine.flows import Flow
from engine.optim.history import History
from engine.optim.words.filling import Form, answers
from engine.program.tools.written import parsed, read_functions
from engine.program.typed.grammar import LINE, Exactly, OneOf, Pattern, Repeat, Then, optional, words
from engine.records import Completion

_TYPES = ("str", "int", "float", "bool", "list[str]", "list[int]", "list[float]")
_LINES = 12
_LINE_CHARS = 90
_DOC_CHARS = 90
_TOKENS = 180
_MOST_CHARS = 2000
_FENCE = "```python\n"
_SYSTEM = "You write short functions in Python."
_INDENT = "    "

_LOWER = OneOf(((0x61, 0x7A),))
_NAME = Then((_LOWER, Repeat(OneOf(((0x30, 0x39), (0x5F, 0x5F), (0x61, 0x7A))), 2, 24)))
_SOLID = OneOf(((0x21, 0x7E), *LINE.ranges[1:]))
_LETTER = OneOf(((0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)))  # begins a line that does something: no comment, no text
_IN_DOC = OneOf(((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), *LINE.ranges[1:]))  # no quotes, no backslash

# Another case with its answer: without one SmolLM2-135M wrote texts and comments in the place of code.
_CASES = "text: Ann has 3 dogs and 2 cats.\nresult: 5\n\ntext: Bob ate 4 figs.\nresult: 4\n\n"
_ADDS = """
    numbers = [int(word) for word in text.split() if word.isdigit()]
    return sum(numbers)
```"""
_SOLVE = f"{_FENCE}def solve(text: str):{_ADDS}"
_BAD = "def solve(text: str):\n    return len(text)"
_TOOL = f'{_FENCE}def sum_of_numbers(text: str):\n    """Add all numbers in a text."""{_ADDS}'

_GENERAL = "Write this function again so that it works for all such cases. Give it a better name and a docstring."
_HELPER = "Write a function that finds such results."


def solution(rows: Sequence[Part], reads: Sequence[str]) -> Form:
    """The function `solve` of the texts that a script reads, from a few rows with their results."""
    asked = "Write the function solve. It takes {} and returns the result."
    shown = (_CASES + asked.format("text"), _SOLVE)
    head = f"def solve({', '.join(f'{name}: str' for name in reads)}):"
    return _form((*rows, Part(asked.format(" and ".join(reads)))), head, shown)


def tool(parts: Sequence[Part]) -> Form:
    """A function of one to three arguments that helps with a few rows, named and described by whoever writes it."""
    return _named((*parts, Part(_HELPER)), 1, 3, _TYPES, (_CASES + _HELPER, _TOOL))


def abstraction(code: str, arguments: int, texts: bool) -> Form:
    """The same function in general, of so many arguments, which are texts or of any type."""
    parts = (Part(f"{code}\n"), Part(_GENERAL))
    return _named(parts, arguments, arguments, ("str",) if texts else _TYPES, (f"{_SOLVE}\n\n{_GENERAL}", _TOOL))


def revision(parts: Sequence[Part], code: str) -> Form:
    """Another version of a function, with the same first line."""
    head = code.partition("\n")[0]
    asked = f"Write a better version of this function:\n{code}"
    return _form((*parts, Part(asked)), head, (f"{_CASES}Write a better version of this function:\n{_BAD}", _SOLVE))


def coded(history: History, form: Form, samples: int, rng: Generator) -> Flow[list[str]]:
    """Up to `samples` different functions that are Python, without what stands behind their last line."""
    completions = yield from answers(history, form, samples, rng)
    head = form.lead.removeprefix(_FENCE)
    codes = [_cut(head + (completion.text or ""), completion) for completion in completions if not completion.error]
    return list(dict.fromkeys(code for code in codes if is_function(code)))


def is_function(code: str) -> bool:
    """Whether a text is one function in Python that can be called by the names of its arguments, and no more."""
    if not code.strip() or len(code) > _MOST_CHARS:
        return False
    try:
        return len(parsed(code).body) == len(read_functions(code)) == 1 and bool(normalized(code))
    except (ContentError, RecursionError):  # the latter from what is Python, but nested too deeply to be looked into
        return False


def normalized(code: str) -> str:
    """What a function does, whatever its names, its types and its docstring: equal where two are alike."""
    tree = parsed(code)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names.setdefault(node.name, f"n{len(names)}")
            node.returns = None
            if ast.get_docstring(node) is not None:
                del node.body[0]
        elif isinstance(node, ast.arg):
            names.setdefault(node.arg, f"n{len(names)}")
            node.annotation = None
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.setdefault(node.id, f"n{len(names)}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.name = names[node.name]
        elif isinstance(node, ast.arg):
            node.arg = names[node.arg]
        elif isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
    return ast.dump(tree)


def _form(parts: Sequence[Part], head: str, shown: tuple[str, str]) -> Form:
    """A function whose first line is given."""
    return Form(_SYSTEM, tuple(parts), _body, f"{_FENCE}{head}\n", (shown,), _LINE_CHARS, _TOKENS, temperature=0.8)


def _named(parts: Sequence[Part], low: int, high: int, types: Sequence[str], shown: tuple[str, str]) -> Form:
    """A function that is named and described by whoever writes it, of `low` to `high` arguments."""
    argument = Then((_NAME, Exactly(": "), words(types)))
    others = Repeat(Then((Exactly(", "), argument)), max(0, low - 1), max(0, high - 1))
    doc = Then((Exactly(f'{_INDENT}"""'), OneOf(((0x41, 0x5A),)), Repeat(_IN_DOC, 8, _DOC_CHARS), Exactly('."""\n')))

    def pattern(chars: int) -> Pattern:
        arguments = Then((argument, others)) if high else Exactly("")
        return Then((_NAME, Exactly("("), arguments, Exactly("):\n"), doc, _body(chars)))

    return Form(_SYSTEM, tuple(parts), pattern, f"{_FENCE}def ", (shown,), _LINE_CHARS, _TOKENS, temperature=0.8)


def _body(chars: int) -> Pattern:
    """Lines of a function, and a last one that returns."""
    line = Then((Exactly(_INDENT), Repeat(Exactly(_INDENT), 0, 3), _LETTER, Repeat(LINE, 0, chars), Exactly("\n")))
    last = Then((Exactly(f"{_INDENT}return "), _SOLID, Repeat(LINE, 0, chars), optional(Exactly("\n```"))))
    return Then((Repeat(line, 0, _LINES), last))


def _cut(text: str, completion: Completion) -> str:
    """A function up to the first line that always returns; what was cut off in the middle of a line loses that line."""
    lines = text.partition("\n```")[0].rstrip().split("\n")
    if completion.finish == "length":
        del lines[-1]
    for number, line in enumerate(lines):
        if line.startswith(f"{_INDENT}return"):
            return "\n".join(lines[: number + 1])
    return "\n".join(lines)
