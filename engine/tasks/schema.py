"""What a task file may say, as frozen records. Unknown keys are errors; defaults are the ones a newcomer wants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config

from engine.tasks.budget import Budget

Auto = Literal["auto"]
Preferred = Literal["preferred"]
Natural = Annotated[int, Field(ge=0, lt=2**63)]  # as much as the store holds
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
_strict = with_config(ConfigDict(extra="forbid"))


@_strict
@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a file, or (`from: train`) rows of the train file that train does not use."""

    path: str | None = None
    source: Annotated[Literal["train"] | None, Field(alias="from")] = None
    limit: Positive | None = None


@_strict
@dataclass(frozen=True, slots=True)
class Data:
    """The splits, and which row field feeds which program input."""

    train: Split
    inputs: Mapping[str, str]
    dev: Split = field(default_factory=lambda: Split(source="train"))
    test: Split | None = None
    target: str | None = None
    accepted: str | None = None


@_strict
@dataclass(frozen=True, slots=True)
class UserMetric:
    """A metric of the user's own: `file.py:function`, relative to the task file."""

    python: str


@_strict
@dataclass(frozen=True, slots=True)
class Judged:
    """Who judges: a model that is asked (one question or several, a rubric), a metric, or a function of the user's own.

    Questions are answered with yes or no, by likelihood. What a model is inclined to say of anything is taken off: what
    it says of nothing (`calibrate: blank`), or what best tells right from wrong answers of train (`answers`).
    """

    ask: str | tuple[str, ...] | None = None
    calibrate: Literal["blank", "answers"] = "blank"
    metric: str | None = None
    python: str | None = None


@_strict
@dataclass(frozen=True, slots=True)
class Loss:
    """What each thing weighs in the objective.

    `metric`, `judge` and `steps` (the mean over judged steps) are values from 0 to 1 to be raised; `cross_entropy` in
    nats, `tokens` in thousands a row, and `seconds` a row are to be lowered.
    """

    metric: Weight = 1.0
    cross_entropy: Weight = 0.0
    judge: Weight = 0.0
    steps: Weight = 0.0
    tokens: Weight = 0.0
    seconds: Weight = 0.0


@_strict
@dataclass(frozen=True, slots=True)
class Optimize:
    """How to optimize; most keys have a command-line flag that overrides them.

    `proposers: [all]` lets a bandit choose among all there are. An edit must gain at least `min_gain` on dev. `loss`
    says what is to be made better, `judge` who judges the answer, and `steps` who judges which node.
    """

    proposers: tuple[str, ...] = ("bias", "demos", "settings", "textual_gradient")
    budget: str = "10m"
    seed: Natural = 0
    optimizer_model: str | None = None
    min_gain: Annotated[float, Field(ge=0, le=1)] = 0.0
    loss: Loss = field(default_factory=Loss)
    judge: Judged | None = None
    steps: Mapping[str, Judged] = field(default_factory=dict)


KVType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]


@_strict
@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """How the model runs. `auto` picks from the machine and the model.

    With `deterministic: true` answers depend on their prompt alone, to the bit, and a model that does not pass the test
    of `localgrad doctor --determinism` is refused; with `preferred` it runs all the same. `auto` is `preferred` where
    programs are optimized under a budget in calls or tokens, and false elsewhere. With `tune`, what `localgrad tune`
    found for the model is used.
    `allow_remote` lets prompts go to a server on another machine.
    """

    threads: Positive | Auto = "auto"
    context: Positive | Auto = "auto"
    parallel: Positive | Auto = "auto"
    gpu_layers: Annotated[int, Field(ge=-1)] = 0
    main_gpu: Natural = 0
    kv_type: KVType | Auto = "auto"
    deterministic: bool | Preferred | Auto = "auto"
    tune: bool = True
    allow_remote: bool = False


@_strict
@dataclass(frozen=True, slots=True)
class TaskFile:
    """A whole task file. `program` stays a mapping here; the program layer reads it.

    `layers` are Python files with layers of the user's own, relative to the task file.
    """

    version: Literal[1]
    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")]
    model: str
    data: Data
    program: Mapping[str, Any]
    layers: tuple[str, ...] = ()
    metric: str | UserMetric = "exact_match"
    optimize: Optimize = field(default_factory=Optimize)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass(frozen=True, slots=True)
class Task:
    """A task file together with where it lies and what its text hashes to."""

    file: TaskFile
    path: Path
    fingerprint: str
    lines: Mapping[tuple[str | int, ...], int]

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from."""
        return self.path.parent

    @property
    def budget(self) -> Budget:
        """The budget, parsed."""
        return Budget.parse(self.file.optimize.budget)

    def where(self, path: tuple[str | int, ...]) -> str:
        """`file:line` of a place in the file; the nearest enclosing place where the path leads nowhere."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.path}:{self.lines.get(path, 1)}"
