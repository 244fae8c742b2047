"""How the labels are spread over the rows, and whether dev has enough of these to decide anything."""

from collections import Counter
from collections.abc import Iterator

from engine.feedback.static.finding import Finding, some
from engine.feedback.static.places import answerers
from engine.feedback.static.predicting import field_of, options
from engine.feedback.static.subject import Subject
from engine.program.layers import Predict
from engine.tasks.answers import normalized

_MOST_SHARE = 0.8  # of the commonest label
_MOST_RATIO = 10  # of the commonest to the rarest
_FEWEST_ROWS = 20  # before a spread says anything


def odd_labels(subject: Subject) -> Iterator[Finding]:
    """Labels that train shows once or never, and a spread in which one of them outweighs the others.

    Looked at where the program's answer is one of several, and rows have an answer.
    """
    counts = Counter(row.target for row in subject.train if row.target)
    if not counts or not _closed(subject):
        return
    unseen = list(dict.fromkeys(row.target for row in subject.dev if row.target and row.target not in counts))
    if unseen:
        text = f"in dev and never in train: {some(unseen)}"
        row = next(row.origin for row in subject.dev if row.target == unseen[0])
        yield Finding("warning", "missing_label", "data.train", text, "give train rows with this label", row)
    shown = {normalized(label) for label in (*counts, *unseen)}
    idle = [option for option in _closed(subject) if normalized(option) not in shown]
    if idle:
        text = f"no row of train has the answer {some(idle)}, which is a choice"
        yield Finding("note", "missing_label", "data.train", text, "give train rows with it, or drop the choice")
    lone = [label for label, count in counts.items() if count == 1]
    if lone:
        text = f"once in train: {some(lone)}"
        row = next(row.origin for row in subject.train if row.target == lone[0])
        yield Finding("warning", "lone_label", "data.train", text, "give more rows with this label", row)
    yield from _imbalance(counts)


def _imbalance(counts: Counter[str]) -> Iterator[Finding]:
    total, (label, most), least = counts.total(), counts.most_common(1)[0], min(counts.values())
    if total < _FEWEST_ROWS or len(counts) < 2:
        return
    advice = "score with macro_f1, or take rows that are spread more evenly"
    if most / total >= _MOST_SHARE:
        text = f"{most / total:.0%} of train is {label!r}: to say nothing else is right as often"
        yield Finding("warning", "imbalance", "data.train", text, advice)
    elif least > 1 and most / least >= _MOST_RATIO:
        text = f"{label!r} stands {most:,} times in train, the rarest label {least}"
        yield Finding("note", "imbalance", "data.train", text, advice)


def few_rows(subject: Subject, fewest_dev: int) -> Iterator[Finding]:
    """A dev split with which no change could ever be accepted."""
    found = len(subject.dev)
    if found < fewest_dev:
        text = f"dev has {found} row{'s' * (found != 1)}, and with fewer than {fewest_dev} no change can be accepted"
        yield Finding("warning", "few_rows", "data.dev", text, f"give it at least {fewest_dev}, better 50 or more")


def _closed(subject: Subject) -> tuple[str, ...]:
    """What the program's answer is one of; nothing where any of it is open."""
    found: list[str] = []
    for place, name in answerers(subject.program):
        closed = options(place.layer, field_of(place.layer, name)) if isinstance(place.layer, Predict) else ()
        if not closed:
            return ()
        found += closed
    return tuple(dict.fromkeys(found))
