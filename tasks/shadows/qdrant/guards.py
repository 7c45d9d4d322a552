"""Conditions that a write to points that others write too is bound to, where the server knows such."""

import re
from collections.abc import Mapping
from typing import Any

from qdrant_client import models

from tasks.stores import canonical
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.configuration import Configuration
from tasks.stores.qdrant.rest import completed

MOST = 16
"""Conditions a write; strict mode sets a limit to them."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""A key that needs no quotes."""


def conditional(qdrant: Qdrant, configuration: Configuration) -> bool:
    """Whether writes to this collection can be bound to what its payloads say, indexed or not."""
    strict = configuration.get("strict_mode_config") or {}
    return qdrant.server.conditional_updates and not (
        strict.get("enabled") and strict.get("unindexed_filtering_update") is False
    )


def unchanged(payload: str | None) -> list[dict[str, Any]]:
    """Conditions that are true while a point has this payload (canonical JSON), as far as its plain values tell."""
    values = canonical.loads(payload) or {}
    return [equal(key, value) for key, value in values.items() if is_plain(key, value)][:MOST]


def equal(key: str, value: str | int | bool) -> dict[str, Any]:
    """The condition that the payload has this value there."""
    return {"key": key, "match": {"value": value}}


def is_plain(key: str, value: Any) -> bool:
    """Whether a condition can be put in these words."""
    return bool(_PLAIN.fullmatch(key)) and (isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**63))


def delete_where(qdrant: Qdrant, collection: str, chosen: Mapping[str, Any]) -> None:
    """Deletes the points that a filter (Qdrant's JSON) is true of."""
    with qdrant.refused():
        result = qdrant.client.delete(collection, models.FilterSelector(filter=models.Filter(**chosen)), wait=True)
    completed(qdrant.place, {"status": str(result.status.value)})
