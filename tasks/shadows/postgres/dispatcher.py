"""The functions that people call, generated from the registry of models: each looks at the dimensions of the query and calls
the function that searches the model of so many, so that old and new instances of an application are both right
where their dimensions differ.

    match_docs                 what the application calls. Until the first cutover, and after its rollback, it is the
                               application's own; otherwise it answers for the active model and those under it.
    match_docs_v2              for trying new vectors before a cutover: answers for every model that is built and not dropped.
                               It is made where the name is free, or ours.
    match_docs_1536_75933ec1   searches one model. Nobody calls it by name, so that it can be made at any time. It lies in the
                               application's schema: whoever calls match_docs may use that, and no right in vecferry is needed.

What a table is searched by is a stack: at the bottom the vectors that it came with, on top those of the run that was cut over
last. New runs may begin at any time, in either layout, from any vectors of the stack.

    a run that is     cutover                  rollback                          contract
    built             yes: it goes on top      yes: what it made is dropped ¹    no: it was not cut over
    on top            it is so already         yes: the one under it is on top   yes: what lies under it is dropped ¹ ²
    under another     it is so already         no: first the one on top          yes: what lies under it is dropped ¹ ²
    rolled back       yes: it goes on top      it is so already                  yes: what it made is dropped ¹
    contracted        it is so already         no: nothing lies under it         it is so already

    ¹ not while a run that was not cut over compares with the vectors that would be dropped: cut that over, or drop it, first
    ² not while what lies under it was made by a run that is not contracted: contract that first

So a contract of the first run under the second drops the vectors that the table came with, and leaves the second whole; one of
the second then drops all that the first made, and ends its catch-up. A refusal names the command that is to be given first.

Where several models have the same dimensions, match_docs searches the one that is highest in the stack. match_docs_v2 searches
the active one, unless the table came with it; then what was built first; and what the table came with last.
"""

from collections.abc import Iterator, Sequence

from tasks.base.words import counted
from tasks.runs import models, search_bodies
from tasks.runs.models import Model
from tasks.runs.plan import Target
from tasks.runs.search_bodies import Searched
from tasks.shadows.postgres import column_readers, generated, search_functions
from tasks.stores.postgres import relations
from tasks.stores.postgres.catalogue import find, is_generated
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import shown, told
from tasks.stores.postgres.places import LivePlace


def problems(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What keeps the functions from being made and switched."""
    yield from search_functions.problems(connection, target)
    for name in target.place.functions:
        if line := _replaced(connection, target, name):
            yield f"{line}: drop it, or name another with `{_option(target, name)}`"


def replaced(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """The functions that somebody has replaced since they were switched, which the rollback of the run would overwrite."""
    return [
        line
        for name in generated.called(connection, target)
        if (line := _replaced(connection, target, name)) is not None
    ]


def notes(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """What people have to know of the functions that are there."""
    if not models.exists(connection):
        return []
    return [
        *column_readers.told(connection, target),
        *(f"{line}: it searches what its own text says, whatever is switched" for line in replaced(connection, target)),
        *generated.unlike_rights(connection, target),
        *_equal(connection, target),
    ]


def _replaced(connection: Connection, target: Target[LivePlace], name: str) -> str | None:
    """What is to be said of a function that somebody has replaced since it was switched."""
    function = find(connection, target.place.schema, name, switched=True)
    own = next((s for s in search_bodies.of_function(connection, target.place.schema, name) if s.own), None)
    if function is None or own is None or own.body == name or is_generated(function):
        return None
    return f"{shown(target.place.schema, name)} was replaced after it was switched"


def warnings(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What is to be known of them before a run."""
    for name in target.place.functions:
        second = generated.second_name(name)
        if (there := find(connection, target.place.schema, second)) and not there.made:
            yield (
                f"{shown(target.place.schema, second)} exists and is not vecferry's, so no function is made to try the "
                "new vectors with"
            )
    yield from search_functions.told(connection, target)
    yield from column_readers.told(connection, target)
    yield from _equal(connection, target)


def _equal(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """Vectors that cannot be told from the new ones."""
    for function in target.place.functions:
        yield from _equal_for(connection, target, function)


def _equal_for(connection: Connection, target: Target[LivePlace], function: str) -> Iterator[str]:
    live, renaming = target.place.live, target.place.renaming
    chain = models.ways_back(connection, live.schema, live.table)
    known = {s.model.model: s.body for s in search_bodies.of_function(connection, target.place.schema, function)}
    size, column = target.dimensions, f"{live.schema}.{live.table}.{live.vectors}"
    kept = dict[str, str]()
    if live.layout.dimensions == size and relations.has_column(connection, live.identifier, live.vectors):
        kept[live.vectors] = generated.body_name(function, size, "", column)
    for model in chain:
        body = known.get(model.model, function)
        name = body if body != function else generated.name_of(function, model)
        kept |= {model.column_name: name} if model.dimensions == size else {}
    before = renaming is not None and target.place.new_column == renaming.working
    after = {renaming.column: renaming.kept, renaming.working: renaming.column} if renaming and before else {}
    searched = after.get(target.place.new_column, target.place.new_column)
    verb, what = ("writes to", "vectors") if function == target.place.write_function else ("searches", "queries")
    for column, name in sorted(kept.items()):
        if column == target.place.new_column:
            continue
        staying = after.get(column, column)
        yield (
            f"{live.schema}.{live.table}.{searched} and {live.schema}.{live.table}.{staying} both have {counted(size or 0, 'dimension')}, "
            f"so {told(function)} cannot tell their {what} apart: from the cutover on it {verb} {searched} alone. Every "
            f"instance of the application has to move to the new model with it; one that stays behind has to call {told(name)}, "
            f"which the cutover makes, and one that goes ahead {told(generated.second_name(function))}"
        )


def names(run_id: str, target: Target[LivePlace], function: str) -> tuple[str, str]:
    """What the functions are called that a run makes of one before its cutover: for its model alone, and for trying."""
    made = generated.body_name(function, target.dimensions, run_id, target.place.column)
    return made, generated.second_name(function)


def ready(connection: Connection, run_id: str, target: Target[LivePlace]) -> None:
    """Makes what searches the run's new vectors, and match_…_v2. No function that people call for old ones is changed."""
    _make_bodies(connection, run_id, target)
    for name in target.place.functions:
        generated.make_second(connection, target, name)


def _make_bodies(connection: Connection, run_id: str, target: Target[LivePlace]) -> Model:
    """Makes what searches the run's new vectors; returns their model."""
    models.hold(connection)
    model = _model(connection, run_id, target)
    models.built(connection, model)
    for name in target.place.functions:
        _make_body(connection, target, model, name)
    return model


def _make_body(connection: Connection, target: Target[LivePlace], model: Model, name: str) -> None:
    known = search_bodies.of_function(connection, target.place.schema, name)
    function = find(connection, target.place.schema, name)
    if function is None and name == target.place.write_function and not known:
        return  # dropped since the plan
    if function and not is_generated(function):
        _note_own(connection, target, model, known, name)
    made = next((s for s in known if s.model.model == model.model), None)
    if made is None or generated.is_outdated(connection, target, made, name):
        generated.make_body(connection, target, model, name, made.body if made else None)


def _note_own(
    connection: Connection, target: Target[LivePlace], model: Model, known: Sequence[Searched], name: str
) -> None:
    """Notes which model the application's own function searches: the one that this run's would take over from, or else the
    one that it was planned from. That may be a run's too, where the function was written after the cutover."""
    own = [s for s in known if s.own]
    searched = models.to_be_replaced(connection, model) or models.compared(connection, model)
    if searched is None or searched.model == model.model or any(s.body != name or s.model.run_id for s in own):
        return
    if searched.run_id:
        generated.drop_bodies(connection, target, searched, name)
    search_bodies.note_own(connection, searched, name)


def stand_in(connection: Connection, run_id: str, target: Target[LivePlace]) -> None:
    """Has functions that are text, and would name columns as they were, called by others from now on: whoever calls them while columns
    are renamed waits in those, and gets what they say after it. ``stand_back`` takes that back."""
    ready(connection, run_id, target)
    for name in target.place.functions:
        generated.stand_in(connection, target, name)


def stand_back(connection: Connection, target: Target[LivePlace]) -> None:
    """Gives the application its own functions back, where none but the old vectors are searched."""
    models.hold(connection)
    generated.generate(connection, target, generated.called(connection, target))


def switch(connection: Connection, run_id: str, target: Target[LivePlace]) -> None:
    """Makes the run's model the one that is searched."""
    models.activate(connection, _make_bodies(connection, run_id, target))
    for name in target.place.functions:
        generated.keep_own(connection, target, name)
    generated.generate(connection, target, generated.called(connection, target))


def take_back(connection: Connection, run_id: str, target: Target[LivePlace]) -> Model | None:
    """Makes the model that was searched before the one that is searched; returns it. What somebody has put in the place of the
    functions is overwritten. Raises UsageError when another run has taken over meanwhile."""
    models.hold(connection)
    before = models.go_back(connection, _model(connection, run_id, target))
    called = generated.called(connection, target)
    for name in called:
        if _replaced(connection, target, name):
            generated.overwrite(connection, target, name)
    generated.generate(connection, target, called, standing_in=target.place.renaming is not None)
    return before


def forget(connection: Connection, run_id: str, target: Target[LivePlace]) -> None:
    """Takes away what was made for new vectors that nobody is switched to. Raises UsageError when a run compares with them."""
    models.hold(connection)
    model = models.of_run(connection, run_id, target.number)
    if model is None:
        return  # the run never claimed its column
    models.may_drop(connection, model)
    called = generated.called(connection, target)
    generated.drop_bodies(connection, target, model)
    models.forget(connection, model)
    generated.generate(connection, target, called)


def retire(connection: Connection, target: Target[LivePlace], model: Model, successor: Model) -> None:
    """Takes away the functions of a model that ``successor`` took over from, whose vectors are about to be dropped. Raises
    UsageError while something would miss them."""
    models.hold(connection)
    models.may_drop(connection, model)
    called = generated.called(connection, target)
    generated.drop_bodies(connection, target, model)
    models.retire(connection, model, successor)
    generated.generate(connection, target, called)


def _option(target: Target[LivePlace], name: str) -> str:
    """The parameter by which a function is named."""
    return "write_function" if name == target.place.write_function else "function"


def _model(connection: Connection, run_id: str, target: Target[LivePlace]) -> Model:
    model = models.of_run(connection, run_id, target.number)
    assert model, f"run {run_id} has not claimed {target.name}"
    return model
