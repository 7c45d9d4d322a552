"""A stored plan is read by programs that came before and after the one that wrote it."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flows.forms.form import parse
from flows.forms.shared import Checked
from flows.forms.text_384_to_1536 import Text384To1536
from flows.running import gates_of
from tasks.base.errors import FatalError, UsageError
from tasks.runs import dataset, ledger, plan_versions
from tasks.runs.plan import Request, differences, from_json
from tasks.stores.postgres.connection import Connection
from tests.helpers import old_ledger
from tests.helpers.pipeline import build, gates

Json = dict[str, Any]
DEFAULTS = (("flow_run",), ("request", "nul"), ("targets", 0, "collection", "m"), ("targets", 0, "live", "limit"))
"""Fields of plans that have a default."""


@pytest.fixture
def plan(database: str, chroma_dir: Callable[..., str]) -> Json:
    """The plan of a run of this program, as it is stored."""
    return build("r", chroma={"path": chroma_dir(count=1)}).plan.as_json()


def _old() -> list[Json]:
    """The plans of the fixtures: those of 0.1.0, and those of the code before versions."""
    lines = [line for name in old_ledger.KINDS for line in old_ledger.dump(name).splitlines()]
    plans = [line.split("', '", 2)[2] for line in lines if line.startswith("INSERT INTO vecferry.run ")]
    return [json.JSONDecoder().raw_decode(text.replace("''", "'"))[0] for text in plans]


def _with_more(value: Any) -> Any:
    """The same with a field more in every object that has a shape."""
    if isinstance(value, dict):
        shaped = {
            k: v if k in ("metadata", "source", "tables", "metrics", "own") else _with_more(v) for k, v in value.items()
        }
        return {**shaped, "of_tomorrow": [1]}
    return [_with_more(v) for v in value] if isinstance(value, list | tuple) else value


def test_a_plan_says_its_version(plan: Json) -> None:
    """And is read as what was written."""
    assert plan["version"] == plan_versions.latest()
    assert from_json(json.loads(json.dumps(plan))).as_json() == plan


def test_plans_from_before_versions_are_read(plan: Json) -> None:
    """They have no version; what became of them is in the latest shape, and what was read is left as it was."""
    for old in _old():
        before = copy.deepcopy(old)
        assert "version" not in old
        written = from_json(old).as_json()
        assert (written["version"], written["run_id"]) == (plan_versions.latest(), old["run_id"])
        assert from_json(written) == from_json(old)
        assert old == before


def test_a_parameter_of_tables_that_came_later_contradicts_no_plan() -> None:
    """A run that was begun before tables could have a label goes on with the same tables; one that is given now is a difference."""

    def asked(**more: str) -> Request:
        return parse(Text384To1536, {"targets": [{"table": "docs", "text": "content", **more}]}).request()

    tables = [{name: value for name, value in asked().own["targets"][0].items() if name != "label"}]
    frozen = replace(asked(), own={**asked().own, "targets": tables})
    assert differences(asked(), frozen, {"targets"}) == []
    assert "'label': 'author'" in differences(asked(label="author"), frozen, {"targets"})[0]


def test_fields_of_another_program_are_no_error(plan: Json) -> None:
    """A field more, anywhere, is passed over; a missing one gets its default."""
    for stored in [json.loads(json.dumps(plan)), *_old()]:
        assert from_json(_with_more(stored)) == from_json(stored)
        for *path, name in DEFAULTS:
            less = copy.deepcopy(stored)
            at: Any = less
            for key in path:
                at = at.get(key, {}) if isinstance(at, dict) else at[key]
            at.pop(name, None)
            assert from_json(less).run_id == stored["run_id"]


def test_what_cannot_be_read_is_named(plan: Json) -> None:
    """A plan of a later version, by its run and both versions; one that lacks what nothing stands for, by the field."""
    later = plan_versions.latest() + 1
    words = f"^run r has a plan of version {later}, .* up to {later - 1}: install the version of vecferry that began"
    with pytest.raises(UsageError, match=words):
        from_json({**plan, "version": later})
    del plan["targets"][0]["dimensions"]
    with pytest.raises(FatalError, match="Target lacks dimensions"):
        from_json(plan)


def test_a_conversion_makes_a_version_of_the_one_before(plan: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a plan has behind it are not applied to it once more."""
    conversions = tuple(lambda data, n=n: {**data, "went": [*data.get("went", []), n]} for n in (2, 3, 4))
    monkeypatch.setattr(plan_versions, "CONVERSIONS", conversions)
    for version, went in ((None, [2, 3, 4]), (1, [2, 3, 4]), (3, [4])):
        stored = {k: v for k, v in plan.items() if k != "version"} | ({"version": version} if version else {})
        assert plan_versions.upgraded(stored) == {**stored, "version": 4, "went": went}
    assert "went" not in plan_versions.upgraded({**plan, "version": 4})


def test_gates_are_read_like_a_plan(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """Of those that a run was given by another program the ones that this one knows hold."""
    run = build("r", chroma={"path": chroma_dir(count=1)})
    ledger.set_gates(connection, "r", {"min_recall": 0.7, "of_tomorrow": 1})
    assert gates_of(run, Checked(run_id="r")) == gates(min_recall=0.7)


def test_a_manifest_is_read_like_a_plan(tmp_path: Any) -> None:
    """A field more of a part is passed over, and a later version is refused."""
    part = dataset.Part(0, 0, "p", 1, "", 1)
    dataset.write_manifest(str(tmp_path), {}, [part])
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    content["parts"][0]["of_tomorrow"] = 1
    path.write_text(json.dumps(content))
    assert dataset.read_manifest(str(tmp_path))[1] == [part]
    path.write_text(json.dumps({**content, "version": dataset.MANIFEST_VERSION + 1}))
    with pytest.raises(UsageError, match=r"has version 2, .* up to 1: install the version"):
        dataset.read_manifest(str(tmp_path))
