"""The forms that Prefect shows, as its server and its two interfaces read them."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.registry import FLOWS
from flows.forms.shared import OF_A_START
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base import stored
from tasks.runs.plan import Request, differences

ROOT = Path(__file__).parents[2]
ENTRYPOINTS = sorted(
    {d["entrypoint"] for d in yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())["deployments"]}
)
DECIMALS = 0.7421


@cache
def schema_of(entrypoint: str) -> dict[str, Any]:
    return load_flow_from_entrypoint(f"{ROOT}/{entrypoint}").parameters.model_dump()


def fields_of(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a form, nested ones too."""
    for form in (schema, *schema["definitions"].values()):
        yield from form.get("properties", {}).items()


def plain_numbers(field: Any) -> bool:
    """Whether the V1 interface finds a number in the field, which it lets be typed in hundredths only."""
    if isinstance(field, list):
        return any(map(plain_numbers, field))
    if not isinstance(field, dict):
        return False
    return field.get("type") == "number" or any(plain_numbers(v) for k, v in field.items() if k != "oneOf")


def is_number(field: dict[str, Any]) -> bool:
    return any(kind.get("type") == "number" for kind in field.get("oneOf", []))


@pytest.mark.parametrize("entrypoint", ENTRYPOINTS)
def test_every_number_can_have_any_decimals(entrypoint: str) -> None:
    """No field of any form is one that the V1 interface refuses to save with three decimals."""
    assert [name for name, field in fields_of(schema_of(entrypoint)) if plain_numbers(field)] == []


@pytest.mark.parametrize("entrypoint", ENTRYPOINTS)
def test_a_form_can_be_saved_with_its_defaults_and_with_decimals(entrypoint: str) -> None:
    """Prefect's server takes each form as it is shown, and with other decimals; it refuses a number out of bounds."""
    schema = schema_of(entrypoint)
    given = dict.fromkeys(schema.get("required", []), "x")
    shown = {name: field["default"] for name, field in schema["properties"].items() if "default" in field}
    validate({**shown, **given}, schema, raise_on_error=True)
    for name, field in schema["properties"].items():
        if is_number(field):
            validate({**given, name: DECIMALS}, schema, raise_on_error=True)
            with pytest.raises(ValidationError, match=name):
                validate({**given, name: -3.5}, schema, raise_on_error=True)
            with pytest.raises(ValidationError, match=name):
                validate({**given, name: "much"}, schema, raise_on_error=True)


def test_the_gates_keep_their_bounds() -> None:
    """A nested number takes any decimals, and none that is out of its bounds."""
    schema = schema_of("flows/verify.py:verify")
    validate({"run_id": "x", "gates": {"min_row_cosine": 0.9995, "min_recall": DECIMALS}}, schema, raise_on_error=True)
    with pytest.raises(ValidationError, match="min_recall"):
        validate({"run_id": "x", "gates": {"min_recall": 1.5}}, schema, raise_on_error=True)


@pytest.mark.parametrize("flow", FLOWS)
def test_a_plan_keeps_the_values_of_the_form_by_their_names(flow: str) -> None:
    """Every field that does not say how one start works is in the request, and is the same when it is read from a ledger;
    what is left at its default is not given, and contradicts no plan."""
    form = FLOWS[flow]
    request = form().request()
    for name, field in form.model_fields.items():
        if name not in OF_A_START:
            assert form.stand_for.get(name, field.alias or name) in request.by_name()
    assert stored.read(Request, json.loads(json.dumps(asdict(request)))) == request
    assert form().given() == set()
    assert differences(form().request(), request, form().given()) == []


def test_what_was_given_is_told_by_the_name_in_the_plan(tmp_path: Path) -> None:
    """A field that stands for another, a relative path and a text in any of its forms mean the same wherever they are given."""
    asked = {"targets": [{"table": "docs", "id": "n", "text": ["title", "body"], "limit": 0}], "on_too_long": "mean"}
    form = Text384To1536.model_validate({**asked, "queries": "q.jsonl"})
    assert form.given() == {"targets", "embedder", "queries"}
    request = form.request()
    assert request.embedder == "openai/text-embedding-3-small?on_too_long=mean"
    assert (request.queries, request.own["targets"][0]["text"]) == (os.path.abspath("q.jsonl"), "{title}\n\n{body}")
    alike = {"targets": [{"table": "docs", "id": ["n"], "text": "{title}\n\n{body}"}], "on_too_long": "mean"}
    twin = Text384To1536.model_validate({**alike, "queries": os.path.abspath("q.jsonl")})
    assert differences(twin.request(), request, twin.given()) == []
    other = Text384To1536.model_validate({**alike, "batch_rows": 7})
    assert differences(other.request(), request, other.given()) == ["batch_rows is 2000 in the plan, now 7"]
    source = ChromaToPgvector.model_validate({"chroma": {"path": str(tmp_path)}})
    assert source.given() == {"source"}
    assert source.missing() is None
    assert "chroma.path" in (ChromaToPgvector().missing() or "")
