"""Aliases: names that point to a collection, and are moved in one atomic call."""

from collections.abc import Sequence

from qdrant_client import models

from tasks.base.errors import FatalError
from tasks.stores.qdrant.client import Qdrant


def pointing(collection: str, alias: str) -> models.CreateAliasOperation:
    """Points the alias to the collection, wherever it points now."""
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))


def target_of(current: str | None, absent: str = "does not exist") -> str:
    """What a message says of an alias: where it points, or that there is none."""
    return f"points to {current}" if current else absent


def without(alias: str) -> models.DeleteAliasOperation:
    """Removes the alias."""
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))


def change(qdrant: Qdrant, operations: Sequence[models.AliasOperations]) -> None:
    """All of them in one call, which readers see at once."""
    if not operations:
        return
    with qdrant.refused():
        done = qdrant.client.update_collection_aliases(list(operations))
    if not done:
        raise FatalError(f"Qdrant at {qdrant.place} did not change its aliases")


def drop(qdrant: Qdrant, collection: str) -> None:
    """Deletes a collection; one that is not there is no error."""
    with qdrant.refused():
        qdrant.client.delete_collection(collection)
