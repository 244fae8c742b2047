"""Analysis: everything that can be found without running a program, worst first.

`findings` needs neither a model nor a flow. `analyse` also counts tokens, as the model reads them; no model is
asked for an answer.
"""

from collections.abc import Iterator, Sequence

from engine.feedback.static.bounds import endless_fields, long_texts
from engine.feedback.static.context import Limits, cut_replies, full_prompts
from engine.feedback.static.demands import foreign_formats, foreign_labels, unnamed_choices
from engine.feedback.static.demonstrations import foreign_demos, leaked_demos, repeated_demos
from engine.feedback.static.finding import Finding, worst_first
from engine.feedback.static.labels import few_rows, odd_labels
from engine.feedback.static.measuring import measured
from engine.feedback.static.reach import dead_nodes, missing_fields, unused_fields, unused_inputs
from engine.feedback.static.repeats import repeated_instructions, repeated_requests, repeated_sentences
from engine.feedback.static.settings import odd_settings
from engine.feedback.static.sizes import Size
from engine.feedback.static.stops import early_stops, idle_stops
from engine.feedback.static.subject import Subject
from engine.feedback.static.targets import foreign_targets, unmet_metrics
from engine.flows import Flow
from engine.program.graph import Program
from engine.records import Example
from engine.tasks.metrics import Metric

_CHECKS = (
    dead_nodes, missing_fields, unused_inputs, unused_fields,
    repeated_requests, repeated_instructions, repeated_sentences,
    foreign_labels, foreign_formats, unnamed_choices,
    foreign_demos, repeated_demos, leaked_demos,
    early_stops, idle_stops, endless_fields, odd_settings,
    foreign_targets, unmet_metrics, odd_labels,
)  # fmt: skip


def analyse(
    program: Program,
    train: Sequence[Example],
    limits: Limits,
    dev: Sequence[Example] = (),
    metric: Metric | None = None,
) -> Flow[list[Finding]]:
    """Everything that is found, worst first. Asks for nothing but Count."""
    subject = Subject(program, tuple(train), tuple(dev), metric)
    sizes = yield from measured(subject)
    return findings(subject, limits, sizes)


def findings(subject: Subject, limits: Limits, sizes: Sequence[Size] = ()) -> list[Finding]:
    """Everything that is found, worst first; of prompts and replies only what `sizes` tell."""
    return worst_first(_all(subject, limits, sizes))


def _all(subject: Subject, limits: Limits, sizes: Sequence[Size]) -> Iterator[Finding]:
    for check in _CHECKS:
        yield from check(subject)
    yield from full_prompts(sizes, limits)
    yield from cut_replies(sizes, limits)
    yield from long_texts(subject, limits.context)
    yield from few_rows(subject, limits.fewest_dev)
