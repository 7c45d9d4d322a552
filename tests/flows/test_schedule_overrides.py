"""What a schedule gives its runs over the deployment's parameters."""

from typing import Any

import pytest

from flows.schedule_overrides import effective, is_empty, overlaid
from tasks.base.errors import UsageError

BLANK = {"__prefect_kind": "json"}


@pytest.mark.parametrize(
    ("value", "empty"),
    [
        (None, True),
        (BLANK, True),
        ({**BLANK, "value": "  "}, True),
        ({"path": None, "token": None}, True),
        ({}, False),
        (0, False),
        (False, False),
        ({"path": None, "ssl": False}, False),
        ({**BLANK, "value": "{}"}, False),
    ],
)
def test_only_what_nobody_filled_in_is_empty(value: Any, empty: bool) -> None:
    """Nulls, blank texts and objects of nothing else are empty; what says something, zero and {} too, is not."""
    assert is_empty(value) is empty


def test_what_is_empty_is_what_is_deployed() -> None:
    """An empty parameter is the deployment's, or left out where that has none; one that is filled in wins, as JSON too."""
    deployed = {"chroma": {"host": "c", "port": 1}, "budget_usd": 5.0, "cutover": "auto"}
    given = {
        "chroma": {"path": None, "host": None},
        "budget_usd": None,
        "cutover": "ask",
        "tables": BLANK,
        "metrics": {**BLANK, "value": '{"docs": "ip"}'},
        "gates": {"min_recall": {**BLANK, "value": "0.95"}, "max_deleted": BLANK},
    }
    assert overlaid(deployed, given) == {
        "chroma": deployed["chroma"],
        "budget_usd": 5.0,
        "cutover": "ask",
        "metrics": {"docs": "ip"},
        "gates": {"min_recall": 0.95},
    }


def test_a_text_that_is_not_json_names_its_parameter() -> None:
    """A field of JSON with something else in it is wrong usage."""
    with pytest.raises(UsageError, match=r"parameter gates\.min_recall is not JSON"):
        overlaid({}, {"gates": {"min_recall": {**BLANK, "value": "much"}}})


def test_parameters_that_no_schedule_gave_stay() -> None:
    """Outside a run of a schedule null means what it says."""
    given = {"budget_usd": None}
    assert effective(given) is given
