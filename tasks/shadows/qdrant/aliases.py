"""Aliases: names that mean a collection, and can be given another in one atomic call."""

from collections.abc import Sequence

from qdrant_client import models

from tasks.base.errors import FatalError
from tasks.stores.qdrant.client import Qdrant


def meaning(collection: str, alias: str) -> models.CreateAliasOperation:
    """Has the alias mean the collection, whatever it means now."""
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))


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
