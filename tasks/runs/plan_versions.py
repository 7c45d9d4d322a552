"""Versions of the plan as JSON: what earlier programs stored, made into the shape that this one reads.

Only what changes its name, its place or its meaning takes a new version. A new field with a default takes none: what has not
got it is read with the default, and who does not know it passes over it.
"""

from collections.abc import Callable
from typing import Any

from tasks.base.errors import UsageError

Json = dict[str, Any]


def with_places(data: Json) -> Json:
    """Version 2: what a target says of its place is no longer among its own fields."""
    return {**data, "targets": [_with_place(data["request"], target) for target in data["targets"]]}


def _with_place(request: Json, target: Json) -> Json:
    layout = {"type": target["type"], "dimensions": target["dimensions"], "metric": target["collection"]["metric"]}
    fields = ("schema", "table", "shadow", "live", "new_column", "function")
    place = {"kind": target["mode"], "layout": layout, **{name: target[name] for name in fields if name in target}}
    kept = {name: target.get(name) for name in ("number", "collection", "dimensions", "space", "old_space")}
    limit = target["live"].get("limit") if "live" in target else request.get("limit")
    if "live" not in target:
        place["nul"] = request.get("nul", "quarantine")
    return {**kept, "limit": limit, "place": place}


def with_own(data: Json) -> Json:
    """Version 3: what only one flow asks for lies together, and keeps the shape of its form."""
    request = data["request"]
    own = {name: request[name] for name in OWN if name in request}
    if "targets" in own:
        own["targets"] = [{name: table[name] for name in OWN_TARGET if name in table} for table in own["targets"]]
    return {**data, "request": {**{n: v for n, v in request.items() if n not in OWN}, "own": own}}


OWN = ("collections", "schema", "tables", "metrics", "halfvec", "nul", "targets", "layout")
OWN_TARGET = ("table", "id", "text", "old_column", "new_column", "function", "limit")
"""What requests of version 2 held for one flow, and for one table of it."""

CONVERSIONS: tuple[Callable[[Json], Json], ...] = (with_places, with_own)
"""The first makes version 2 of version 1, the next version 3, and so on; none changes what it is given."""


def latest() -> int:
    """The version that this program writes."""
    return 1 + len(CONVERSIONS)


def upgraded(data: Json) -> Json:
    """A stored plan in the shape of the latest version. One that does not say its version is of version 1: 0.1.0 wrote none.

    Raises UsageError when it is newer than this program.
    """
    version = data.get("version", 1)
    if version > latest():
        raise UsageError(
            f"run {data['run_id']} has a plan of version {version}, and this vecferry reads versions up to "
            f"{latest()}: install the version of vecferry that began the run"
        )
    for convert in CONVERSIONS[version - 1 :]:
        data = convert(data)
    return {**data, "version": latest()}
