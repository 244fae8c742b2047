"""What a row costs: alone, beside demonstrations that all rows share, beside ones of its own."""

from support_optim import closed_program, open_program, rows

from engine.optim.pricing import price, rows_worth
from engine.program.parameters import Demo

TRAIN = rows(40)
DEMOS = [Demo({"text": f"thing {number} is red"}, {"colour": "red"}) for number in range(30)]


def test_a_bare_row_is_worth_one_in_every_unit() -> None:
    for program in (closed_program(), open_program()):
        assert price(program, TRAIN) == 1.0
        assert all(rows_worth(program, TRAIN, unit) == 1.0 for unit in ("seconds", "calls", "tokens"))


def test_shared_demonstrations_slow_rows_down_and_fill_their_prompts() -> None:
    few, many = (closed_program().replace({"colour.demos": DEMOS[:count]}) for count in (5, 30))
    assert price(few, TRAIN) == price(many, TRAIN) == 1.0
    assert 1.0 < rows_worth(few, TRAIN, "seconds") < rows_worth(many, TRAIN, "seconds")
    assert rows_worth(many, TRAIN, "seconds") < rows_worth(many, TRAIN, "tokens")
    assert rows_worth(many, TRAIN, "calls") == 1.0


def test_demonstrations_of_a_rows_own_are_computed_for_it_alone() -> None:
    shared = closed_program().replace({"colour.demos": DEMOS[:8]})
    own = closed_program().replace({"colour.demos": DEMOS, "colour.nearest": 8})
    assert price(own, TRAIN) > 5
    assert rows_worth(own, TRAIN, "seconds") > 2 * rows_worth(shared, TRAIN, "seconds")
    assert rows_worth(own, TRAIN, "calls") == 1.0
