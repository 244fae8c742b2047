"""Programs drawn: every node with what it reads, as lines and as a picture that is well-formed and without overlaps."""

import itertools
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.program.drawing import _placed, as_svg, as_text
from engine.program.graph import Program
from engine.program.layer import Input, Symbol
from engine.program.layers.predict import Predict
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


@pytest.mark.parametrize("text", ["a < b & c", '"quoted"'])
def test_text_of_a_program_cannot_leave_its_place_in_the_picture(text: str) -> None:
    program = Program(Predict("-", "answer", choices=(text, "other"))(Input("question")))
    ET.fromstring(as_svg(program))
