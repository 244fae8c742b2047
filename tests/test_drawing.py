"""Programs drawn: every node with what it reads, as lines and as a picture that is well-formed and without overlaps."""

import itertools
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.program.drawing import _placed, as_svg, as_text
from engine.program.graph import Program
from engine.program.layer import Input, Symbol
from engine.program.layers import Predict, Retrieve, Sequential
from engine.program.parameters import Demo

SVG = "{http://www.w3.org/2000/svg}"


def small() -> Program:
    question = Input("question")
    kind = Predict("Say what is asked for.", "kind", choices=("person", "place"), bias=(0.5, 0.0))(question)
    demo = Demo({"question": "Who?", "kind": "person"}, {"reasoning": "A name.", "year": "1815"})
    outputs = {"reasoning": "text", "year": "int"}
    return Program(Predict("Answer.", outputs, demos=(demo,), style="plain")(question, kind, name="answer"))


def test_every_input_node_and_the_answer_has_a_line_that_says_what_it_reads() -> None:
    assert as_text(small()) == [
        "question     input",
        "kind         predict  2 choices · chat · bias                ← question",
        "answer       predict  reasoning, year: int · plain · 1 demo  ← question, kind.kind",
        "answer.year  answer",
    ]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Graphs of up to nine nodes, each reading one to three fields before it."""
    symbols: list[Symbol] = [Input(f"input{n}") for n in range(draw(st.integers(1, 3)))]
    for number in range(draw(st.integers(1, 9))):
        read = draw(
            st.lists(st.sampled_from(symbols), min_size=1, max_size=3, unique_by=lambda symbol: symbol.reference)
        )
        instruction = draw(st.text("<&>\"' ab", min_size=1, max_size=30).filter(str.strip))
        symbols.append(Predict(instruction, f"field{number}", max_tokens=9)(*read, name=f"node{number}"))
    return Program(symbols[-1])


@settings(max_examples=60)
@given(programs())
def test_a_picture_is_well_formed_and_no_two_boxes_overlap(program: Program) -> None:
    root = ET.fromstring(as_svg(program))
    names = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "name"]
    assert sorted(map(str, names)) == sorted((*program.inputs, *(node.name for node in program.nodes)))
    edges = {(source.split(".")[0], node.name) for node in program.nodes for source in node.sources.values()}
    assert len([path for path in root.iter(f"{SVG}path") if path.get("class") == "edge"]) == len(edges)
    reads = {node.name: tuple(source.split(".")[0] for source in node.sources.values()) for node in program.nodes}
    boxes = _placed(program, reads)
    for first, second in itertools.combinations(boxes.values(), 2):
        apart = abs(first.x - second.x) >= (first.width + second.width) / 2
        assert apart or first.y + first.height <= second.y or second.y + second.height <= first.y
    for source, reader in edges:
        assert boxes[source].y + boxes[source].height < boxes[reader].y


def nested() -> Program:
    """A node of steps, one of which has steps of its own, and an edge that passes a row."""
    question = Input("question")
    passages = Retrieve("a-rather-long-name-of-an-index", k=8, threshold=0.25)(question)
    inner = Sequential(
        {"draft": Predict("-", {"reasoning": "text", "draft": "text"}), "check": Predict("-", "verdict")}
    )
    steps = {"plan": Predict("-", "plan"), "write": inner, "finish": Predict("-", "answer")}
    return Program(Sequential(steps)(question, passages, name="answer"))


def test_parts_stand_below_their_layer_as_deep_as_they_lie() -> None:
    lines = [line.split("  ←")[0].rstrip() for line in as_text(nested())]
    assert lines[2:] == [
        "answer           sequential  plan → write → finish",
        "  steps.plan     predict     plan · chat",
        "  steps.write    sequential  draft → check",
        "    steps.draft  predict     reasoning, draft · chat",
        "    steps.check  predict     verdict · chat",
        "  steps.finish   predict     answer · chat",
        "answer.answer    answer",
    ]


def test_every_line_of_a_box_begins_and_ends_within_it_and_parts_are_indented_by_depth() -> None:
    root = ET.fromstring(as_svg(nested()))
    boxes = {
        rect: [float(rect.get(key, "")) for key in ("x", "y", "width", "height")] for rect in root.iter(f"{SVG}rect")
    }
    starts: dict[str, float] = {}
    for text in root.iter(f"{SVG}text"):
        x, y, said = float(text.get("x", "")), float(text.get("y", "")), "".join(text.itertext())
        start = x - len(said) * 7.8 / 2 if text.get("text-anchor") == "middle" else x
        inside = [box for box in boxes.values() if box[0] < start and box[1] < y < box[1] + box[3]]
        assert any(start + len(said) * 7.8 < box[0] + box[2] for box in inside), said
        part = text.find(f"{SVG}tspan")
        if part is not None:
            starts[str(part.text)] = x
    assert starts["steps.plan"] == starts["steps.write"] == starts["steps.finish"]
    assert starts["steps.draft"] == starts["steps.check"] > starts["steps.plan"]


def test_an_edge_that_passes_a_row_passes_beside_its_nodes() -> None:
    program = nested()
    boxes = _placed(program, {"passages": ("question",), "answer": ("question", "passages")})
    way, node = boxes["question 1"], boxes["passages"]
    assert abs(way.x - node.x) >= (way.width + node.width) / 2
    path = next(
        p.get("d", "") for p in ET.fromstring(as_svg(program)).iter(f"{SVG}path") if p.get("d", "").count("C") == 2
    )
    assert f"{way.x:.1f} {way.y:.1f}L{way.x:.1f} {way.y + way.tall:.1f}" in path


@pytest.mark.parametrize("text", ["a < b & c", '"quoted"'])
def test_text_of_a_program_cannot_leave_its_place_in_the_picture(text: str) -> None:
    program = Program(Predict("-", "answer", choices=(text, "other"))(Input("question")))
    ET.fromstring(as_svg(program))
