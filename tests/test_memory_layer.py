"""Memory: what it reads and writes, how it goes from example to example, what it may know, and where it is kept."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support_layers import Script, done, gradients, round_trip, run
from support_optim import EXACT

import engine
from engine.cli import run as localgrad
from engine.errors import ContentError
from engine.feedback.backward import backward
from engine.flows import together
from engine.forward import bind, forward, unrolled
from engine.inference.runtime import Runtime
from engine.inference.scripted import Answer, ScriptedBackend
from engine.inference.service import Prepared, Reply
from engine.optim.racing import DEFAULT, race
from engine.program.critique import Gradients
from engine.program.drawing import as_text
from engine.program.event import Event
from engine.program.graph import Program
from engine.program.layer import Input
from engine.program.layers import Memory, Predict, Sequential
from engine.program.layers.memory import NOTHING
from engine.program.recurrence import carries_state
from engine.program.saved import SavedProgram, load_saved
from engine.records import Chat, Completion, Example, Generate, Nearest, Passage, Request, Trace
from engine.store.rows import RunRow
from engine.store.store import Store
from engine.tasks.metrics import METRICS
from engine.tasks.schema import RuntimeSettings

NOTES = ("Ada likes tea.", "Bob has a red car.", "Ada lives in Oslo.")


class WordOverlap:
    """A small real service in place of an embedder: the score is the share of words that two texts have in common."""

    name = identity = "word overlap"

    def prepare(self, request: Request) -> Prepared:
        assert isinstance(request, Nearest)
        content = {"kind": "nearest", "query": request.query, "texts": list(request.texts), "k": request.k}
        return Prepared(request, request.query, content)

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        for key, prepared in asked:
            request = prepared.request
            assert isinstance(request, Nearest)
            if "fail" in request.query:
                reply(key, Completion(error="no embedder"))
                continue
            query = _words(request.query)
            scores = [len(query & _words(text)) / len(query | _words(text)) for text in request.texts]
            best = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: request.k]
            found = [Passage(str(place), "", "", "", scores[place]) for place in best]
            reply(key, Completion(passages=tuple(found)))

    def cancel(self, keys: Collection[str] | None = None) -> None:
        """Nothing is ever unfinished."""

    def close(self) -> None:
        """Nothing to free."""


def _words(text: str) -> set[str]:
    return set(text.casefold().replace(".", "").replace("?", "").split())


def assistant(memory: Memory) -> Program:
    """Answers a question with its memory at hand."""
    question = Input("question")
    return Program(Predict("Answer it.", output="answer")(question, memory(question)))


def asked(*questions: str) -> list[Example]:
    return [Example(str(number), {"question": text}, ("SECRET",)) for number, text in enumerate(questions)]


def echo(request: Request, prompt: str) -> Answer:
    """Answers with the last line that holds the question."""
    return prompt.rpartition("Question: ")[2].split("\n")[0].upper()


def passes(
    program: Program, examples: list[Example], script: Any = echo, **options: Any
) -> tuple[list[Trace], Program]:
    with Runtime({"task": ScriptedBackend(script)}, Store(":memory:"), {"retrieval": WordOverlap()}) as runtime:
        return runtime.run(unrolled(program, examples, METRICS["exact_match"], **options))


def notes(program: Program) -> tuple[str, ...]:
    return next(parameter.value for name, parameter in program.parameters.items() if name.endswith("entries"))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"k": 2}, "- Bob has a red car.\n- Ada lives in Oslo."),
        ({"k": 9}, "- Ada likes tea.\n- Bob has a red car.\n- Ada lives in Oslo."),
        ({"read": "all"}, "- Ada likes tea.\n- Bob has a red car.\n- Ada lives in Oslo."),
        ({"read": "recall", "k": 2}, "- Ada lives in Oslo.\n- Ada likes tea."),
    ],
)
def test_memory_reads_its_last_its_nearest_or_all_notes(settings: dict[str, Any], text: str) -> None:
    step = done(Memory(NOTES, **settings), Script({}), {"retrieval": WordOverlap()}, question="Where is it Ada lives?")
    assert step.outputs == {"memory": text}


def test_recall_leaves_its_notes_and_scores_in_the_trace() -> None:
    memory = Memory(NOTES, read="recall", k=1)
    step = done(memory, Script({}), {"retrieval": WordOverlap()}, name="Bob", question="What car?")
    assert [(passage.id, passage.text, passage.score) for passage in step.passages] == [("1", NOTES[1], 2 / 6)]
    assert len(step.calls) == 1


def test_a_recall_that_fails_is_a_failed_step() -> None:
    step = done(Memory(NOTES, read="recall"), Script({}), {"retrieval": WordOverlap()}, question="fail")
    assert (step.error, step.outputs) == ("no embedder", {})


@pytest.mark.parametrize("read", ["window", "all", "recall"])
def test_a_memory_without_notes_says_so_and_asks_for_nothing(read: Any) -> None:
    step = done(Memory(read=read), Script({}), question="Q")
    assert (step.outputs, step.calls) == ({"memory": NOTHING}, ())


def test_what_goes_beyond_the_characters_is_left_out_from_the_oldest_on() -> None:
    step = done(Memory(("a" * 90, "b" * 60, "c" * 40), read="all", chars=100), Script({}), question="Q")
    assert step.outputs["memory"] == f"- {'b' * 60}\n- {'c' * 40}"
    (long,) = done(Memory(("x" * 300,), chars=100), Script({}), question="Q").outputs.values()
    assert long == f"- {'x' * 99}…"


def test_a_summary_is_read_as_it_stands() -> None:
    assert done(Memory(NOTES[:1], write="summary"), Script({}), question="Q").outputs["memory"] == NOTES[0]


# ── writing ──────────────────────────────────────────────────────────────────────────────────────

TEXTS = st.text(max_size=40)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=12), st.integers(1, 5))
def test_a_window_holds_the_last_events_and_never_more_than_its_size(events: list[tuple[str, str]], size: int) -> None:
    memory = Memory(size=size)
    lines = []
    for number, (question, answer) in enumerate(events):
        lines.append((f"{number} {' '.join(question.split())}".strip() + " → " + " ".join(answer.split())).strip())
        with pytest.raises(StopIteration) as written:  # a window asks for nothing
            next(memory.note(Event({"question": f"{number} {question}"}, answer)))
        memory = memory.holding(written.value.value.outputs["note"])
        assert memory.entries == tuple(lines[-size:])
        memory.parameters(())["entries"].check(memory.entries)
    round_trip(memory, "question")


@given(TEXTS, TEXTS, TEXTS, st.none() | st.floats(0, 1), st.integers(1, 60))
def test_a_line_is_a_note_however_long_its_event(
    question: str, answer: str, target: str, score: float | None, times: int
) -> None:
    event = Event({"question": question * times, "hint": answer * times}, answer * times, score, target * times)
    (line,) = Memory((event.line,)).parameters(())["entries"].check((event.line,))
    assert "\n" not in line


@pytest.mark.parametrize(
    ("score", "target", "verdict"),
    [
        (None, None, ""),
        (1.0, "b", "right"),
        (0.0, "b", "wrong, right is b"),
        (0.5, "b", "score 0.5, right is b"),
        (None, "b", "right is b"),
        (0.0, None, "wrong"),
    ],
)
def test_a_verdict_says_what_is_known(score: float | None, target: str | None, verdict: str) -> None:
    event = Event({"question": "q", "hint": "h"}, "a", score, target)
    assert event.verdict == verdict
    assert event.line == "Question: q; Hint: h → a" + (f" ({verdict})" if verdict else "")
    assert event.lines[3:] == ([f"Verdict: {verdict}"] if verdict else [])


def test_a_summary_is_rewritten_with_the_event() -> None:
    prompts: list[Generate] = []

    def write(request: Generate) -> str:
        prompts.append(request)
        return "Ada likes tea and lives in Oslo."

    memory = Memory(NOTES[:1], write="summary", instruction="Sum it up.")
    result = run(memory.note(Event({"question": "Where am I?"}, "Oslo")), Script({"Sum it up.": write}))
    assert memory.holding(result.outputs["note"]).entries == ("Ada likes tea and lives in Oslo.",)
    assert isinstance(prompts[0].prompt, Chat)
    assert prompts[0].prompt.messages[-1].text.splitlines() == [
        "Summary: Ada likes tea.",
        "Question: Where am I?",
        "Answer: Oslo",
        "Sum it up.",
    ]
    assert (prompts[0].max_tokens, prompts[0].stop) == (112, ("\n",))
    assert prompts[0].grammar is not None


@pytest.mark.parametrize(
    ("note", "after"),
    [
        ("Bob is tall.", ("Eve sings.", "Bob is tall.")),
        ("  ", ("Ada likes tea.", "Eve sings.")),
        ("ada  likes TEA", ("Ada likes tea.", "Eve sings.")),
    ],
)
def test_insights_leave_out_what_is_blank_or_known_and_drop_the_oldest(note: str, after: tuple[str, ...]) -> None:
    memory = Memory(("Ada likes tea.", "Eve sings."), write="insights", size=2)
    written = run(memory.note(Event({"question": "Q"}, "A")), Script({"worth remembering": note}))
    assert memory.holding(written.outputs["note"]).entries == after


def test_a_smaller_size_drops_the_oldest_notes() -> None:
    program = assistant(Memory(NOTES)).replace({"memory.size": 2})
    assert notes(program) == NOTES[1:]


# ── from example to example ──────────────────────────────────────────────────────────────────────


def test_what_was_asked_and_answered_stands_in_the_next_prompt() -> None:
    traces, after = passes(assistant(Memory(k=2)), asked("one", "two", "three", "four"))
    assert [trace.steps[0].outputs["memory"] for trace in traces] == [
        NOTHING,
        "- one → ONE",
        "- one → ONE\n- two → TWO",
        "- two → TWO\n- three → THREE",
    ]
    assert traces[3].steps[1].inputs["memory"] == "- two → TWO\n- three → THREE"
    assert notes(after) == ("one → ONE", "two → TWO", "three → THREE", "four → FOUR")
    assert {trace.program for trace in traces} == {assistant(Memory(k=2)).fingerprint}


def test_forward_carries_the_state_by_itself_and_stores_what_it_returns() -> None:
    program, examples = assistant(Memory()), asked("one", "two")
    with Runtime({"task": ScriptedBackend(echo)}, Store(":memory:")) as runtime:
        traces = runtime.run(forward(program, examples, METRICS["exact_match"]), run="r")
        rows = runtime.store._db.execute("SELECT example, steps FROM traces ORDER BY example").fetchall()
        assert bind(program, runtime)(question="three").text == "THREE"
    assert traces == passes(program, examples)[0]
    assert [(id, json.loads(steps)[-1]["outputs"]) for id, steps in rows] == [
        ("0", {"note": "one → ONE"}),
        ("1", {"note": "two → TWO"}),
    ]


QUESTIONS = st.lists(st.text(alphabet="abc ", min_size=1, max_size=8), min_size=1, max_size=6, unique=True)


@settings(max_examples=20)
@given(QUESTIONS)
def test_unrolled_without_writing_is_forward(questions: list[str]) -> None:
    program, examples = assistant(Memory(NOTES, write="none")), asked(*questions)
    assert not carries_state(program)
    with Runtime({"task": ScriptedBackend(echo)}, Store(":memory:")) as runtime:
        side_by_side = runtime.run(forward(program, examples, METRICS["exact_match"]))
    assert passes(program, examples) == (side_by_side, program)


@settings(max_examples=20)
@given(QUESTIONS, st.integers(1, 8), st.randoms(use_true_random=False))
def test_the_order_of_examples_matters_through_the_memory_alone(questions: list[str], size: int, random: Any) -> None:
    program, examples = assistant(Memory(size=size, read="all")), asked(*questions)
    order = random.sample(range(len(examples)), len(examples))
    straight, _ = passes(program, examples)
    mixed, after = passes(program, [examples[place] for place in order])
    for place, trace in zip(order, mixed, strict=True):
        assert trace.prediction.text == straight[place].prediction.text
        assert trace.steps[-1] == straight[place].steps[-1]
    lines = [straight[place].steps[-1].outputs["note"] for place in order]
    assert [trace.steps[0].outputs["memory"] for trace in mixed] == [
        "\n".join(f"- {line}" for line in lines[max(0, seen - size) : seen]) or NOTHING for seen in range(len(lines))
    ]
    assert notes(after) == tuple(lines[-size:])


def test_a_memory_that_is_a_part_carries_its_state_too() -> None:
    talk = Sequential({"memory": Memory(read="recall", k=1), "reply": Predict("Answer it.", output="answer")})
    traces, after = passes(Program(talk(Input("question"))), asked("red car", "tea", "my car"))
    assert traces[2].steps[0].steps[1].inputs["memory"] == "- red car → RED CAR"
    assert after.parameters["answer.steps.memory.entries"].value[-1] == "my car → MY CAR"
    assert traces[0].steps[-1].node == "answer.steps.memory.write"


def test_a_memory_learns_the_inputs_that_its_node_reads() -> None:
    question, hint = Input("question"), Input("hint")
    note = Predict("Note it.", output="note")(hint)
    memory = Memory()(question)
    program = Program(
        Predict("Answer it.", output="answer")(question, memory, Memory(output="more")(note, name="more"))
    )
    _, after = passes(program, [Example("1", {"question": "q", "hint": "h"}, ("a",))], lambda request, prompt: "x")
    assert after.parameters["memory.entries"].value == ("q → x",)
    assert after.parameters["more.entries"].value == ("Question: q; Hint: h → x",), "it reads no input"


def test_a_failed_execution_leaves_no_note_and_the_next_goes_on() -> None:
    traces, after = passes(assistant(Memory(NOTES[:1], read="recall")), asked("fail", "tea"))
    assert traces[0].prediction.error == "memory: no embedder"
    assert [step.node for step in traces[0].steps] == ["memory"]
    assert notes(after) == (NOTES[0], "tea → TEA")


def test_a_note_that_could_not_be_written_is_an_error_in_the_trace_and_no_more() -> None:
    def script(request: Request, prompt: str) -> Answer:
        return "word " * 200 if "Answer it." in prompt else "Never asked."

    program = assistant(Memory(NOTES[:1], write="insights", instruction="remember " * 40))
    with Runtime({"task": ScriptedBackend(script, context=60)}, Store(":memory:")) as runtime:
        traces, after = runtime.run(unrolled(program, asked("one")))
    assert traces[0].prediction.error is None
    assert traces[0].steps[-1].node == "memory.write"
    assert (traces[0].steps[-1].error or "").startswith("the prompt needs")
    assert after == program


def test_runs_of_several_programs_with_memory_go_side_by_side_over_all_of_dev() -> None:
    """A race in blocks would begin anew with each block, and would not compare with the incumbent."""
    first = assistant(Memory(k=30))
    second = first.replace({"memory.k": 1})
    dev = asked(*(f"question {number}" for number in range(60)))
    with Runtime({"task": ScriptedBackend(echo)}, Store(":memory:")) as runtime:
        rng = np.random.default_rng(0)
        runners = runtime.run(race([first, second], dev, EXACT.run, EXACT.value, DEFAULT, rng))
    assert [list(runner.traces) for runner in runners] == [passes(program, dev)[0] for program in (first, second)]


# ── what a memory may know ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("write", ["window", "summary", "insights"])
@pytest.mark.parametrize("reveal", [False, True])
def test_right_answers_reach_a_memory_only_where_they_are_revealed(write: Any, reveal: bool) -> None:
    seen: list[str] = []

    def script(request: Request, prompt: str) -> Answer:
        seen.append(prompt)
        return "Remember this well." if "Answer it." not in prompt else "no"

    program, examples = assistant(Memory(write=write)), asked("one", "two")
    traces, after = passes(program, examples, script, reveal=reveal)
    left = f"{seen} {[trace.steps for trace in traces]} {notes(after)}"
    assert ("SECRET" in left) == reveal
    assert ("wrong" in left) == reveal
    if not reveal:
        blind = [replace(example, accepted=("another",)) for example in examples]
        assert [trace.steps for trace in passes(program, blind, script)[0]] == [trace.steps for trace in traces]


# ── backward ─────────────────────────────────────────────────────────────────────────────────────


def test_what_was_said_of_notes_that_a_model_wrote_is_asked_of_its_instruction() -> None:
    memory, script = Memory(NOTES, write="insights", instruction="Keep what matters."), Script({})
    step = done(memory, script, question="Where?")
    assert gradients(memory, step, script, "question") == Gradients({"instruction": ["change instruction"]})
    (about,) = script.asked
    assert about.splitlines() == [
        "Instruction: Keep what matters.",
        "Question: Where?",
        "Memory: - Ada likes tea.",
        "- Bob has a red car.",
        "- Ada lives in Oslo.",
        "Mistake: It was wrong.",
        "In one sentence, say how the instruction should change so that this mistake does not happen.",
    ]


def test_an_instruction_is_not_blamed_for_notes_it_has_not_written() -> None:
    memory, script = Memory(write="summary"), Script({})
    assert gradients(memory, done(memory, script, question="Q"), script, "question") == Gradients()
    assert script.asked == []


def test_a_window_takes_no_blame_and_recall_passes_it_on_to_its_query() -> None:
    script = Script({})
    for read, inputs in (
        ("window", {}),
        ("recall", {"question": ["It recalled notes of which was said: It was wrong."]}),
    ):
        memory = Memory(NOTES, read=read)  # type: ignore[arg-type]  # one of its options
        step = done(memory, script, {"retrieval": WordOverlap()}, question="Q")
        assert gradients(memory, step, script, "question") == Gradients(inputs=inputs)
    assert script.asked == []


def test_backward_walks_from_the_answer_over_the_notes_to_the_instruction() -> None:
    script = Script({"Keep": "Oslo is far.", "Answer it.": "no"})
    program = assistant(Memory(write="insights", instruction="Keep what matters."))
    traces, _ = passes(program, asked("one", "two"), script)
    feedback = run(backward(program, traces[1:]), script)
    assert [item.parameter for item in feedback] == ["memory.instruction", "answer.instruction"]
    assert "how the memory should change" in script.asked[1]
    assert "Instruction: Keep what matters." in script.asked[2]
    assert "Mistake: change memory" in script.asked[2]


# ── as settings, on disk, and in commands ────────────────────────────────────────────────────────


def test_memory_is_written_and_read_alike() -> None:
    for memory in (
        Memory(),
        Memory(NOTES, "notes", read="recall", write="none", k=7, size=9, chars=300),
        Memory(NOTES[:1], write="summary"),
        Memory(NOTES, write="insights", instruction="Keep what matters."),
    ):
        round_trip(memory, "question", "hint")


@given(st.lists(st.text(min_size=1, max_size=30).filter(str.strip), max_size=5))
def test_a_saved_program_holds_its_notes_whatever_they_are(tmp_path: Path, texts: list[str]) -> None:
    saved = SavedProgram("assistant", "scripted", "", assistant(Memory(tuple(texts))))
    saved.save(tmp_path / "assistant.yaml")
    assert load_saved(tmp_path / "assistant.yaml") == saved


def test_a_program_with_memory_is_drawn_with_what_it_holds() -> None:
    lines = as_text(assistant(Memory(NOTES, read="recall", write="insights")))
    assert any("3 notes, recall 4, writes insights" in line for line in lines)
    assert Memory(NOTES[:1], read="all", write="none").summary == "1 note, all"


def test_cost_counts_what_is_written_after_an_example() -> None:
    assert Memory().cost({"question": 10}).calls == 0
    cost = Memory(write="insights", instruction="i" * 40).cost({"question": 10})
    assert (cost.calls, cost.read, cost.written) == (1, 10 + 10 + 100, 56)
    assert cost.gives == {"memory": 500}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"read": "some"}, "node 'm': read: expected 'window', 'all' or 'recall', found 'some'"),
        ({"write": "log"}, "node 'm': write: expected 'none', 'window', 'summary' or 'insights', found 'log'"),
        ({"entries": "one"}, "node 'm': entries: expected a list, found 'one'"),
        ({"entries": ["a", " "]}, "node 'm': entries: note 2: expected text, found ' '"),
        ({"entries": ["a" * 1001]}, "node 'm': entries: note 1: text of 1001 characters; at most 1000 here"),
        ({"entries": ["a", "b"], "size": 1}, "node 'm': entries: 2 notes; at most 1 here"),
        ({"entries": ["a", "b"], "write": "summary"}, "node 'm': entries: 2 notes; at most 1 here"),
        ({"instruction": "Keep it."}, "node 'm': instruction has no meaning with write: window"),
        ({"k": 0}, "node 'm': k: expected a number from 1 to 50, found 0"),
        ({"n": 1}, "node 'm': unknown key 'n'"),
    ],
)
def test_memory_names_what_is_wrong(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ContentError) as raised:
        Program.from_mapping({"m": {"layer": "memory", "inputs": ["question"], **spec}})
    assert str(raised.value).startswith(says)


def test_an_optimizer_may_give_recall_up_but_not_bring_it_in() -> None:
    assert assistant(Memory(read="recall")).replace({"memory.read": "all"}).parameters["memory.read"].value == "all"
    with pytest.raises(ContentError, match="expected one of window, all"):
        assistant(Memory()).replace({"memory.read": "recall"})


def test_an_assistant_remembers_from_one_command_to_the_next(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "assistant.yaml"
    saved = SavedProgram("assistant", "scripted", "", assistant(Memory(write="window")))
    saved.save(path)
    assert localgrad(["run", str(path), "-i", "question=Hello"]) == 0
    assert load_saved(path) == saved, "without --remember nothing is written"
    assert localgrad(["run", str(path), "-i", "question=I am Ada", "--remember"]) == 0
    (tmp_path / "rows.jsonl").write_text('{"question": "Who am I?"}\n{"question": "And now?"}\n', "utf-8")
    assert localgrad(["run", str(path), str(tmp_path / "rows.jsonl"), "--remember"]) == 0
    asked = [note.split(" → ")[0] for note in notes(load_saved(path).program)]
    assert asked == ["I am Ada", "Who am I?", "And now?"]
    assert [file.name for file in tmp_path.glob("assistant*")] == ["assistant.yaml"]
    capfd.readouterr()


def test_remembering_is_refused_where_there_is_nothing_to_write_into(
    tmp_path: Path, make_task: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "program.yaml"
    for program in (assistant(Memory(NOTES, write="none")), Program(Predict("Answer it.")(Input("question")))):
        SavedProgram("plain", "scripted", "", program).save(path)
        assert localgrad(["run", str(path), "-i", "question=Q", "--remember"]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.endswith("program.yaml: --remember needs a memory that writes, and this program has none")
    assert localgrad(["run", str(make_task()), "-i", "question=Q", "--remember"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "--remember writes into a saved program, and this is a task" in line


def test_a_task_with_memory_is_optimized_and_keeps_the_notes_it_was_given(
    tmp_path: Path, make_task: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    predict = {"layer": "predict", "instruction": "What is asked for?", "choices": ["person", "place"]}
    bias = {"person": 6.0, "place": 0.0}
    program = {
        "memory": {"layer": "memory", "inputs": ["question"], "entries": ["Rome is a place."], "k": 2},
        "kind": {**predict, "inputs": ["question", "memory"], "bias": bias},
    }
    task = make_task(program=program, optimize={"proposers": ["bias", "settings"], "budget": "200calls"})
    assert localgrad(["optimize", str(task), "--json"]) == 0
    best = load_saved(Path(json.loads(capfd.readouterr().out)["program"]))
    assert notes(best.program) == ("Rome is a place.",)
    assert yaml.safe_load(task.read_text("utf-8"))["program"] == program


def test_diff_shows_the_notes_that_came_and_went(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before, after = assistant(Memory(NOTES[:2])), assistant(Memory(NOTES[1:]))
    report = {"baseline": {"fingerprint": before.fingerprint}, "best": {"fingerprint": after.fingerprint}}
    with Store(tmp_path / "store.db") as store:
        for program in (before, after):
            store.put_program(program.fingerprint, program.to_mapping())
        store.put_run(RunRow("r1", "optimize", "t", "", "", 0, {}, "done", 0.0, report))
    assert localgrad(["diff", "r1", "--store", str(tmp_path / "store.db")]) == 0
    assert capfd.readouterr().out.splitlines()[2:] == [
        "memory.entries: 2 → 2 notes",
        "  - Ada likes tea.",
        "  + Ada lives in Oslo.",
    ]


# ── with the embedded model ──────────────────────────────────────────────────────────────────────


@pytest.mark.model
def test_a_name_that_was_told_stands_in_the_next_prompt(tmp_path: Path) -> None:
    question = Input("question")
    tell = Predict("Answer with the help of the memory.", output="answer", max_tokens=16)
    programs = [Program(tell(Memory(write=write)(question), question)) for write in ("window", "summary", "insights")]
    talk = asked("My name is Ada. Say hello.", "What is my name?")
    one_thread = RuntimeSettings(threads=1)  # quick even where other processes keep the cores busy
    with engine.open_runtime("smollm2-135m", store=":memory:", folder=tmp_path, settings=one_thread) as runtime:
        talks = runtime.run(together([unrolled(program, talk) for program in programs]))
        for (told, wanted), after in talks:
            assert told.steps[0].outputs["memory"] == NOTHING
            note, held = told.steps[-1].outputs["note"], wanted.steps[1].inputs["memory"]
            assert note
            assert note in held
            (call,) = (runtime.store.call(key) for key in wanted.steps[1].calls)
            assert call is not None
            assert f"Memory: {held}\nQuestion: What is my name?" in call.prompt
            SavedProgram("assistant", "smollm2-135m", "", after).save(tmp_path / "assistant.yaml")
            assert load_saved(tmp_path / "assistant.yaml").program == after
    window, summary, insights = talks
    assert "My name is Ada" in window[0][1].steps[1].inputs["memory"]
    assert [len(notes(after)) for _, after in (window, summary)] == [2, 1]
    assert all(note.rstrip() and "\n" not in note for note in notes(insights[1]))
