"""What sizes say: prompts that do not fit into the context or nearly do not, and replies that are cut off."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.feedback.static.finding import Finding, Severity
from engine.feedback.static.sizes import Size

_NEAR = 0.8  # of the context


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a task: the context in tokens (None where it is not known), and the fewest rows of dev that decide.

    Not `exact` are sizes that were estimated without the model, or a context that was assumed: they prove no error.
    """

    context: int | None = None
    fewest_dev: int = 0
    exact: bool = True


def full_prompts(sizes: Iterable[Size], limits: Limits) -> Iterator[Finding]:
    """Requests that take more of the context than there is, or more than four fifths of it."""
    context = limits.context
    for size in sizes:
        if context is None or size.worst <= _NEAR * context:
            continue
        exact = limits.exact and size.by == "count"
        about = "" if exact else "about "
        held = f"tokens, and the context holds {context:,}"
        severity: Severity = "warning"
        row = ""
        if size.sure > context and size.by == "count":
            text = f"the longest row of train takes {about}{size.sure:,} {held}: it fails"
            severity, row = "error" if exact and size.vital else "warning", size.row
        elif size.worst > context:
            text = f"it may take {about}{size.worst:,} {held}: it fails then"
        else:
            text = f"it may take {about}{size.worst:,} {held}"
        yield Finding(severity, "context", size.place, text, _where_to_save(size), row)


def cut_replies(sizes: Iterable[Size], limits: Limits) -> Iterator[Finding]:
    """Caps on what is written that lie below the shortest reply there is, or below the longest that is wanted."""
    for size in sizes:
        about = "" if limits.exact else "about "
        name, advice = f"{size.place}.max_tokens", f"write max_tokens: {max(size.needed, size.wanted)} or more"
        if size.needed > size.reply:
            text = f"the shortest reply has {about}{size.needed:,} tokens, and it may write {size.reply:,}"
            yield Finding("error" if limits.exact and size.vital else "warning", "cap", name, text, advice)
        elif size.wanted > size.reply:
            what = "the longest target of train" if size.wanted_row else "the longest choice"
            text = f"{what} has {about}{size.wanted:,} tokens, and it may write {size.reply:,}"
            yield Finding("warning", "cap", name, text, advice, size.wanted_row)


def _where_to_save(size: Size) -> str:
    """The largest part of it that somebody chose."""
    parts = {
        "show fewer demonstrations": size.demos,
        "lower max_tokens of the nodes that it reads, or k": size.others,
        "lower its max_tokens": size.reply,
        "shorten the instruction": size.fixed if size.by == "count" else 0,
        "leave the longest rows out, or set runtime.context higher": size.longest,
    }
    return max(parts, key=parts.__getitem__)
