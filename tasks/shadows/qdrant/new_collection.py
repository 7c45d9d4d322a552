"""A collection that an alias comes to point to. The old one stays as it is, and may still be written by its own name: what changes
there is brought until the contract drops it."""

from dataclasses import dataclass

from qdrant_client import models

from tasks.base.errors import UsageError, VerificationRefused
from tasks.base.words import counted
from tasks.runs.commands import command
from tasks.runs.plan import Target
from tasks.shadows.qdrant import aliases
from tasks.shadows.qdrant.aliases import target_of
from tasks.shadows.qdrant.beside import BesideShadow, refuse_aliased
from tasks.stores.qdrant.places import NewCollection


@dataclass(frozen=True)
class NewCollectionShadow(BesideShadow):
    """Satisfies Shadow."""

    target: Target[NewCollection]

    def old_collection(self) -> str:
        return self.target.place.collection

    def ready_to_switch(self) -> None:
        place, current = self.target.place, self._current()
        if current != place.alias_was:
            raise VerificationRefused(
                f"alias {place.alias} {target_of(current)} and {_pointed(place)} when run {self.run.run_id} was "
                f"planned, so it was not moved: {_back(place)}, then {self._command('cutover')}"
            )
        self.mark_used()

    def switching(self) -> list[models.AliasOperations]:
        return [aliases.pointing(self.target.place.new_collection, self.target.place.alias)]

    def switch(self) -> None:
        """The alias is all."""

    def advice(self) -> list[str]:
        place, model = self.target.place, self.run.plan.request.embedder
        using = f", using={place.new_vector!r}" if place.new_vector != place.vector else ""
        opened = "" if place.alias_was else f"open {place.alias} in place of {place.collection}, and "
        lines = [
            f"alias {place.alias} now points to {place.new_collection}: in the application, {opened}make the vectors of queries and of "
            f"new points by {model}: {counted(place.dimensions, 'dimension')}, {place.distance}{using}"
        ]
        others = [name for name, current in self.qdrant.aliases().items() if current == place.collection]
        return lines + [f"alias {name} still points to {place.collection}" for name in sorted(others)]

    def take_back(self, switched: bool) -> list[str]:
        place, current = self.target.place, self._current()
        if current == place.new_collection:
            back = aliases.pointing(place.alias_was, place.alias) if place.alias_was else aliases.without(place.alias)
            aliases.change(self.qdrant, [back])
            now = f"points to {place.alias_was} again" if place.alias_was else "was removed"
            return [
                f"alias {place.alias} {now}; {place.new_collection} is kept, and what was written to it since the switch is not in "
                f"{place.collection}"
            ]
        if not switched:
            return [f"{place.name} was not switched; {self.drop_new()}"]
        if current != place.alias_was:
            raise UsageError(
                f"alias {place.alias} no longer points to {place.new_collection} (it {target_of(current)}), so it was left alone: "
                f"{_back(place)}, then "
                f"{self._command('rollback')}"
            )
        return [f"alias {place.alias} {target_of(current)} already; {place.new_collection} is kept"]

    def contract(self) -> list[str]:
        place, qdrant = self.target.place, self.qdrant
        if (current := self._current()) != place.new_collection:
            raise UsageError(
                f"alias {place.alias} no longer points to {place.new_collection} (it {target_of(current)}), so {place.collection} was not "
                f"dropped: point the alias to {place.new_collection}, then {self._command('contract')}"
            )
        dropped = place.collection in qdrant.collections()
        if dropped:
            refuse_aliased(qdrant, place.collection, "drop")
            self.refuse_changed()
            aliases.drop(qdrant, place.collection)
        self.known.drop()
        return [f"dropped collection {place.collection}"] if dropped else []

    def _current(self) -> str | None:
        return self.qdrant.aliases().get(self.target.place.alias)

    def _command(self, verb: str) -> str:
        return command(verb, self.run.run_id, self.run.plan.request.database)


def _pointed(place: NewCollection) -> str:
    """What the alias was when the run was planned."""
    return f"pointed to {place.alias_was}" if place.alias_was else "did not exist"


def _back(place: NewCollection) -> str:
    """What makes the alias as it was."""
    return f"point it to {place.alias_was}" if place.alias_was else "delete it"
