"""localgrad attribute: what it prints, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support_cli import Cli, complaint

TaskMaker = Callable[..., Path]

TOLD = "What does the question ask for? Name the kind. Look at the first word."


def node(**settings: Any) -> dict[str, Any]:
    """A program of one Predict."""
    return {"kind": {"layer": "predict", "inputs": ["question"], "instruction": TOLD, **settings}}


@pytest.fixture
def task(make_task: TaskMaker) -> Path:
    return make_task(program=node(choices="auto"))


@pytest.mark.parametrize("how", [[], ["--halves", "8"]])
def test_every_sentence_has_its_figure_the_worst_first(cli: Cli, task: Path, how: list[str]) -> None:
    done = cli("attribute", task, "--json", *how)
    assert done.code == 0, done.err
    assert {row["text"] for row in done.json} == {
        "What does the question ask for?", "Name the kind.", "Look at the first word.",
    }  # fmt: skip
    assert [row["effect"] for row in done.json] == sorted(row["effect"] for row in done.json)
    for row in done.json:
        assert (row["kind"], row["place"]) == ("sentence", "kind.instruction")
        assert row["advice"] in ("keep", "edit", "drop")
        assert row["error"] >= 0
        assert row["examples"] > 0


def test_people_get_a_table(cli: Cli, task: Path) -> None:
    done = cli("attribute", task, "--limit", "3")
    assert done.code == 0, done.err
    assert "over 3 rows" in done.out
    assert "Look at the first word." in done.out


def test_demonstrations_are_measured_on_rows_that_they_do_not_show(cli: Cli, make_task: TaskMaker) -> None:
    demos = [{"inputs": {"question": "Who is Ada?"}, "outputs": {"kind": "person"}}]
    path = make_task(program=node(choices="auto", demos=demos))
    kinds = [row["kind"] for row in cli("attribute", path, "--json").json]
    assert sorted(kinds) == ["demo", "sentence", "sentence", "sentence"]


def test_what_an_earlier_node_wrote_is_left_out_of_one_row(cli: Cli, make_task: TaskMaker) -> None:
    hint = {"layer": "predict", "inputs": ["question"], "instruction": "Give a hint.", "max_tokens": 4}
    path = make_task(program={"hint": hint, **node(choices="auto", inputs=["question", "hint"])})
    (found,) = cli("attribute", path, "--row", "train-1", "--json").json
    assert (found["kind"], found["place"], found["examples"]) == ("input", "hint.hint", 1)


def test_what_cannot_be_measured_is_said_in_one_line(cli: Cli, make_task: TaskMaker) -> None:
    plain = make_task()
    assert "nothing can be left out" in complaint(cli("attribute", plain), 1)
    assert "reads nothing of others" in complaint(cli("attribute", plain, "--row", "train-1"), 1)
    assert "no row of train has this id" in complaint(cli("attribute", plain, "--row", "nobody"), 2)
    typed = make_task(program=node(outputs={"why": "text", "kind": "text"}))
    assert "has a likelihood" in complaint(cli("attribute", typed), 1)
