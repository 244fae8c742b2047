"""The objective that a task file declares: its metric, its loss and its judges."""

from collections.abc import Mapping, Sequence

from engine.errors import ContentError
from engine.feedback.judges import ByFunction, ByMetric, Judge, Rubric, UserJudge
from engine.feedback.objective import Objective
from engine.flows import Flow
from engine.program.graph import Program
from engine.records import Example
from engine.tasks.metrics import METRICS, Metric
from engine.tasks.schema import Judged, Task
from engine.tasks.taskfile import nearest
from engine.tasks.usercode import blamed, load_function

_CALIBRATED_ON = 40  # train examples


def declared_objective(task: Task, program: Program, metric: Metric) -> Objective:
    """Read `optimize.loss`, `judge` and `steps` of a task.

    Raises:
        ContentError: file:line and what is wrong with them.
        UsageError: a file of the user's is absent.
    """
    settings = task.file.optimize
    judge = _judge(settings.judge, task, ("optimize", "judge")) if settings.judge else None
    steps: dict[str, Judge] = {}
    for node, judged in settings.steps.items():
        place = ("optimize", "steps", node)
        known = [one.name for one in program.nodes]
        if node not in known:
            raise ContentError(f"{task.where(place)}: no node {node!r}: {nearest(node, known)}")
        steps[node] = _judge(judged, task, place)
    weights = settings.loss
    for name, there in (("judge", judge is not None), ("steps", bool(steps))):
        if getattr(weights, name) and not there:
            raise ContentError(f"{task.where(('optimize', 'loss', name))}: {name} weighs something, but there is none")
    if not any((weights.metric, weights.judge, weights.steps, weights.cross_entropy)):
        raise ContentError(
            f"{task.where(('optimize', 'loss'))}: nothing to raise: give metric, judge or steps a weight"
        )
    return Objective(metric, weights, judge, steps)


def calibrated_objective(
    objective: Objective, task: Task, program: Program, train: Sequence[Example]
) -> Flow[Objective]:
    """The objective with the judges that are models calibrated, as the task says: a few dozen calls."""
    judge = objective.judge
    declared = task.file.optimize.judge
    if isinstance(judge, Rubric) and declared:
        judge = yield from _calibrated(judge, declared, program.inputs, "answer", train)
    steps: dict[str, Judge] = {}
    for name, one in objective.steps.items():
        node = program.node(name)
        said = task.file.optimize.steps[name]
        if isinstance(one, Rubric):
            one = yield from _calibrated(one, said, node.inputs, node.layer.outputs[-1], ())
        steps[name] = one
    return Objective(objective.metric, objective.weights, judge, steps)


def _calibrated(
    rubric: Rubric, declared: Judged, inputs: Sequence[str], output: str, train: Sequence[Example]
) -> Flow[Rubric]:
    if declared.calibrate == "answers":
        return (yield from rubric.calibrated_on_answers(train[:_CALIBRATED_ON], output))
    return (yield from rubric.calibrated_on_nothing(inputs, output))


def _judge(declared: Judged, task: Task, place: tuple[str, ...]) -> Judge:
    where = task.where(place)
    given = [name for name in ("ask", "metric", "python") if getattr(declared, name)]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise ContentError(f"{where}: a judge is one of ask, metric and python; found {found}")
    if declared.calibrate == "answers" and (declared.ask is None or place[1] == "steps"):
        raise ContentError(f"{where}: calibrate: answers is for the questions asked of the whole program's answer")
    if declared.ask:
        return Rubric((declared.ask,) if isinstance(declared.ask, str) else tuple(declared.ask))
    if declared.metric:
        if declared.metric not in METRICS:
            raise ContentError(
                f"{where}: unknown metric {declared.metric!r}: {nearest(declared.metric, sorted(METRICS))}"
            )
        return ByMetric(METRICS[declared.metric])
    assert declared.python is not None  # one of the three is given
    return ByFunction(_users(declared.python, task, where), declared.python)


def _users(reference: str, task: Task, where: str) -> UserJudge:
    """A function of the user's, whatever it does wrong told in one line."""
    function = load_function(reference, task.folder, where)

    def checked(inputs: Mapping[str, str], outputs: Mapping[str, str], example: Example) -> float | tuple[float, str]:
        with blamed(f"{reference} failed on {example.id}"):
            found = function(inputs, outputs, example)
            value, said = found if isinstance(found, tuple) else (found, "")
            value = float(value)
        if not 0.0 <= value <= 1.0:
            raise ContentError(f"{reference} gave {value} on {example.id}; a judgement lies between 0 and 1")
        return value, str(said)

    return checked
