"""The frozen records that cross layers, from a data row to a scored trace.

They hold data only: nothing here renders, decodes, scores or stores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task: what goes in, and every answer that counts as right (the first is the target).

    `origin` is the `file:line` it came from.
    """

    id: str
    inputs: Mapping[str, str]
    accepted: tuple[str, ...] = ()
    origin: str = ""

    @property
    def target(self) -> str | None:
        """The preferred answer; None where the row has no answer."""
        return self.accepted[0] if self.accepted else None


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. Its text is data: it can never forge a turn of the chat template."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Chat:
    """Turns for the model's own chat template; the reply opens with `lead`."""

    messages: tuple[Message, ...]
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Plain:
    """Text the model continues as it stands."""

    text: str


Prompt = Chat | Plain


# ── requests and their completions ───────────────────────────────────────────────────────────────

Role = Literal["task", "optimizer", "retrieval", "tools", "sandbox"]


@dataclass(frozen=True, slots=True)
class Generate:
    """Write on from a prompt: greedy at temperature 0, else sampled with a seed made from content.

    `stop` texts end the answer and are not part of it. `grammar` is GBNF with the start symbol `root`.
    Two requests that differ only in `sample` are independent draws.
    """

    prompt: Prompt
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    sample: int = 0
    grammar: str | None = None
    role: Role = "task"


@dataclass(frozen=True, slots=True)
class Score:
    """Ask for the log-likelihood of each continuation of one prompt.

    `end` is the text that ends an answer (None: the model's end-of-turn token); it is counted only for a
    continuation that another one starts with. With `want="winner"` the answer is only which continuation has the
    highest log-likelihood plus `bias` (nats, one each; empty: none), the first of equals: far cheaper with many.
    """

    prompt: Prompt
    continuations: tuple[str, ...]
    end: str | None = None
    want: Literal["all", "winner"] = "all"
    bias: tuple[float, ...] = ()
    role: Role = "task"


@dataclass(frozen=True, slots=True)
class Count:
    """Ask how many tokens a prompt has. Costs no model call."""

    prompt: Prompt
    role: Role = "task"


RetrievalMode = Literal["dense", "lexical", "hybrid"]


@dataclass(frozen=True, slots=True)
class Search:
    """Find at most `k` passages of an index for a query, best first; with a threshold none of a lower score."""

    index: str
    query: str
    k: int
    mode: RetrievalMode = "hybrid"
    threshold: float | None = None
    role: Role = "retrieval"


@dataclass(frozen=True, slots=True)
class Nearest:
    """Find the `k` of some texts that are nearest in meaning to a query. Passages are named by their place, `"0"` on.

    They come nearest first; with `hubs_first` those come first that are near to most of the other texts.
    """

    query: str
    texts: tuple[str, ...]
    k: int
    order: Literal["nearest_first", "hubs_first"] = "nearest_first"
    role: Role = "retrieval"


@dataclass(frozen=True, slots=True)
class Describe:
    """Ask what a user's function `file.py:function` takes: its name, description and parameters, as JSON."""

    tool: str
    role: Role = "tools"


@dataclass(frozen=True, slots=True)
class CallTool:
    """Call a user's function with `arguments`, a JSON object. It is taken to be a pure function of them."""

    tool: str
    arguments: str
    role: Role = "tools"


@dataclass(frozen=True, slots=True)
class RunPython:
    """Run code that nobody has to trust, with `inputs` (a JSON object) as variables; the answer is JSON."""

    source: str
    inputs: str = "{}"
    seconds: float = 1.0
    role: Role = "sandbox"


@dataclass(frozen=True, slots=True)
class RunSql:
    """Read from a SQLite file with one statement; the answer is JSON. An empty statement asks for the schema."""

    database: str
    statement: str
    rows: int = 20
    seconds: float = 1.0
    role: Role = "sandbox"


ModelRequest = Generate | Score | Count
Request = ModelRequest | Search | Nearest | Describe | CallTool | RunPython | RunSql


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that was found. `score` is a cosine (dense), a BM25 score (lexical) or a fused one (hybrid)."""

    id: str
    document: str
    title: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one request: one of `text`, `loglikelihoods`, `winner`, `count`, `passages` and `error` is set.

    `loglikelihoods` are in nats, one per continuation, in order, already rounded. `computed_tokens` are the rows
    that llama_decode was given for this request alone.
    """

    key: str = ""
    text: str | None = None
    loglikelihoods: tuple[float, ...] | None = None
    winner: int | None = None
    count: int | None = None
    passages: tuple[Passage, ...] | None = None
    error: str | None = None
    finish: Literal["stop", "length", ""] = ""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """One completed request as the store keeps it: all that is needed to read it again years later."""

    key: str
    model: str
    kind: str
    request: str
    prompt: str
    completion: Completion


# ── what an execution leaves behind ──────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Step:
    """One node of one execution, or one part of what a node did. `probabilities` belong to choices, in their order.

    `steps` are what a layer made of others had them do, in order, and `calls` the keys of calls made outside of them.
    `value` is a number by which the step was judged, such as the log-odds that it is right. `tokens`, read and written,
    and `seconds`, each call's from its start to its end, are those of all its calls, `steps` included.
    """

    node: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    calls: tuple[str, ...] = ()
    loglikelihoods: tuple[float, ...] | None = None
    probabilities: Mapping[str, float] | None = None
    passages: tuple[Passage, ...] = ()
    steps: "tuple[Step, ...]" = ()
    value: float | None = None
    error: str | None = None
    tokens: int = 0
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a program answered for one example. A failed execution has an `error` and an empty text."""

    text: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    probabilities: Mapping[str, float] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge found of one step, or of the answer where `node` is empty: a value in [0, 1], and why it is low."""

    node: str
    value: float
    said: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """One forward pass of one program over one example, with its score in [0, 1]; NaN where none was asked for."""

    program: str
    example: Example
    steps: tuple[Step, ...]
    prediction: Prediction
    score: float
    judgements: tuple[Judgement, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens read and written, cached or not."""
        return sum(step.tokens for step in self.steps)

    @property
    def seconds(self) -> float:
        """Seconds of all its calls, each from its start to its end; companions in a batch make them longer."""
        return sum(step.seconds for step in self.steps)


RemarkKind = Literal["gradient", "judge", "attribution", "failure", "loss"]


@dataclass(frozen=True, slots=True)
class Remark:
    """What feedback said about one execution. `node` is what it is about: `node`, `node.field` or `node.parameter`.

    What is about a part goes on from there as its step is named (`answer.steps.plan`, `gate.of 1`) or its parameter
    (`answer.of.instruction`). `value` is the number behind the words, if there is one; the store keeps finite ones.
    """

    program: str
    example: Example
    node: str
    kind: RemarkKind
    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """What should change in one parameter, in words, and the examples that say so."""

    parameter: str
    text: str
    examples: tuple[str, ...] = ()
