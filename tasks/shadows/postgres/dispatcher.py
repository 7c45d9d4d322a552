"""The functions that people call, generated from the registry of models: each looks at the dimensions of the query and calls
the function that searches the model of so many, so that old and new instances of an application are both right.

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

from collections.abc import Callable, Iterator, Sequence

from psycopg import sql

from tasks.base.errors import FatalError
from tasks.runs import models
from tasks.runs.models import Model, Searched
from tasks.runs.names import short, suffix
from tasks.runs.plan import Target
from tasks.shadows.postgres import search_functions
from tasks.shadows.postgres.search_functions import columns
from tasks.stores.postgres.catalogue import (
    MADE,
    Function,
    define_as,
    drop,
    find,
    give_body,
    grant_alike,
    signature,
)
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace

Body = Callable[[Connection, Target[LivePlace], str], None]
"""Makes a function, of the name that it gets, that searches a target's new vectors: what the application calls decides with
which arguments, ``search_functions.make`` with those of match_docs."""


def problems(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What keeps the functions from being made and switched."""
    yield from search_functions.problems(connection, target)
    if target.place.function and (line := _replaced(connection, target, target.place.function)):
        yield f"{line}: drop what it became, or name another with `function`"


def _replaced(connection: Connection, target: Target[LivePlace], name: str) -> str | None:
    """What is to be said of a function that somebody has replaced since it was switched."""
    function = find(connection, target.place.schema, name)
    own = next((s for s in models.searched(connection, target.place.schema, name) if s.own), None)
    if function is None or own is None or own.body == name or _generated(function):
        return None
    return f"{target.place.schema}.{name} was replaced since it was switched, so it is not vecferry's to change"


def warnings(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """What is to be known of them before a run."""
    if target.place.function is None:
        return
    second = _second(target.place.function)
    if (there := find(connection, target.place.schema, second)) and not there.ours:
        yield f"{target.place.schema}.{second} is there and not vecferry's: none is made to try the new vectors with"
    live = target.place.live
    dimensions = {live.vectors: live.layout.dimensions}
    dimensions |= {m.column_name: m.dimensions for m in models.ways_back(connection, live.schema, live.table)}
    for column in sorted(column for column, size in dimensions.items() if size == target.dimensions):
        if column != target.place.new_column:
            yield (
                f"{target.name} and {live.schema}.{live.table}.{column} both have {target.dimensions} dimensions, by which "
                f"{target.place.function} cannot tell them apart: after the cutover it searches {target.place.new_column} "
                f"alone, and queries of the old model find the wrong rows"
            )


def names(run_id: str, target: Target[LivePlace]) -> list[str]:
    """What the functions are called that a run makes before its cutover; none where there is nothing to switch."""
    if target.place.function is None:
        return []
    made = body_name(target.place.function, target.dimensions, run_id, target.name)
    return [made, _second(target.place.function)]


def ready(connection: Connection, run_id: str, target: Target[LivePlace], body: Body = search_functions.make) -> None:
    """Makes what searches the run's new vectors, and match_…_v2. No function that people call for old ones is changed."""
    models.hold(connection)
    model, name = _model(connection, run_id, target), target.place.function
    models.built(connection, model)
    if name is None:
        return
    function, known = (
        find(connection, target.place.schema, name),
        models.searched(connection, target.place.schema, name),
    )
    if function and not _generated(function) and not any(s.own for s in known):
        old = models.at(connection, target.place.schema, target.place.table, target.place.live.vectors)
        if old:
            models.search_by(connection, old, name, name, own=True)
    if not any(s.model.model == model.model for s in known):
        made = _name(name, model)
        body(connection, target, made)
        if function:
            grant_alike(connection, function, made)
        models.search_by(connection, model, name, made, own=False)
    _move_second(connection, target, name)
    _make_second(connection, target, name)


def switch(connection: Connection, run_id: str, target: Target[LivePlace], body: Body = search_functions.make) -> None:
    """Makes the run's model the one that is searched."""
    ready(connection, run_id, target, body)
    models.activate(connection, _model(connection, run_id, target))
    if target.place.function:
        _keep_own(connection, target, target.place.function)
    _generate(connection, target, _called(connection, target))


def take_back(connection: Connection, run_id: str, target: Target[LivePlace]) -> Model | None:
    """Makes the model that was searched before the one that is searched; returns it. Raises UsageError when another run
    has taken over meanwhile, and FatalError when somebody has replaced what people call."""
    models.hold(connection)
    for name in _called(connection, target):
        if line := _replaced(connection, target, name):
            raise FatalError(f"{line}: drop what it became; the rollback then puts back what it was")
    before = models.go_back(connection, _model(connection, run_id, target))
    _generate(connection, target, _called(connection, target))
    return before


def forget(connection: Connection, run_id: str, target: Target[LivePlace]) -> None:
    """Takes away what was made for new vectors that nobody is switched to. Raises UsageError when a run compares with them."""
    models.hold(connection)
    model = models.of_run(connection, run_id, target.number)
    if model is None:
        return  # the run never claimed its column
    models.may_drop(connection, model)
    called = _called(connection, target)
    _drop_bodies(connection, target, model)
    models.forget(connection, model)
    _generate(connection, target, called)


def retire(connection: Connection, target: Target[LivePlace], model: Model, successor: Model) -> None:
    """Takes away the functions of a model that ``successor`` took over from, whose vectors are about to be dropped. Raises
    UsageError while something would miss them."""
    models.hold(connection)
    models.may_drop(connection, model)
    called = _called(connection, target)
    _drop_bodies(connection, target, model)
    models.retire(connection, model, successor)
    _generate(connection, target, called)


def _generate(connection: Connection, target: Target[LivePlace], called: Sequence[str]) -> None:
    """The functions that people call, from the registry as it is now."""
    chain = models.ways_back(connection, target.place.schema, target.place.table)
    for name in called:
        _move_second(connection, target, name)
        function = find(connection, target.place.schema, name)
        by_model = {s.model.model: s for s in models.searched(connection, target.place.schema, name)}
        serving = [by_model[m.model] for m in chain if m.model in by_model]
        if function is None:
            function = _recreated(connection, target, name)
        if function and serving and _generated(function):
            if len(serving) == 1 and serving[0].own:
                _restore_own(connection, function, serving[0])
            else:
                give_body(connection, function, _choice(connection, function, serving))
        _make_second(connection, target, name)  # last, because what came with the table may have got another name


def _make_second(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """match_…_v2, where the name is free or ours."""
    second, function = _second(name), find(connection, target.place.schema, name)
    there = find(connection, target.place.schema, second)
    if there and not there.ours:
        return
    known = models.searched(connection, target.place.schema, name)
    if not any(s.model.run_id for s in known):
        if there:
            drop(connection, there)
        return
    chosen = columns(target, function)
    if there and there.columns != chosen:
        drop(connection, there)  # what a function returns cannot be replaced
        there = None
    what = f"the vectors of {target.place.schema}.{target.place.table} that have the query's dimensions"
    search_functions.create(connection, target.place.schema, second, chosen, what, "BEGIN\nEND", "plpgsql")
    made = find(connection, target.place.schema, second)
    assert made
    # What came with the table can be asked for by match_docs; so its place is behind all others of as many dimensions.
    known = sorted(known, key=lambda s: (not (s.model.state == "active" and s.model.run_id), not s.model.run_id))
    give_body(connection, made, _choice(connection, made, known))
    if function and there is None:
        grant_alike(connection, function, second)
    # PostgREST looks at the catalogue again; elsewhere nobody listens.
    connection.execute("NOTIFY pgrst, 'reload schema'")


def _choice(connection: Connection, function: Function, known: Sequence[Searched]) -> str:
    """PL/pgSQL that calls the function of the model with the query's dimensions; the first of several that have as many."""
    dims = f"{pgvector_schema(connection)}.vector_dims({quoted(function.query)})"
    arguments = ", ".join(map(quoted, function.names))
    bodies: dict[int | None, str] = {}
    for searched in known:
        call = f"{sql.Identifier(function.schema, searched.body).as_string()}({arguments})"
        bodies.setdefault(searched.model.dimensions, f"RETURN QUERY SELECT * FROM {call};")
    any_dimensions = bodies.pop(None, None)
    lines = [f"-- {MADE}, from vecferry.model and vecferry.search_function.", "BEGIN"]
    for dimensions in sorted(filter(None, bodies)):
        lines += [
            f"    IF {dims} = {dimensions} THEN",
            f"        {bodies[dimensions]}",
            "        RETURN;",
            "    END IF;",
        ]
    lines.append(f"    {any_dimensions or _refusal(function.name, sorted(filter(None, bodies)), dims)}")
    return "\n".join([*lines, "END"])


def _refusal(name: str, served: Sequence[int], dims: str) -> str:
    *most, last = map(str, served)
    named = f"{', '.join(most)} and {last}" if most else last
    words = f"{name} serves queries of {named} dimensions, not ".replace("%", "%%")
    return f"RAISE EXCEPTION {sql.Literal(f'{words}%').as_string()}, {dims} USING ERRCODE = 'data_exception';"


def _keep_own(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """Puts the application's own function aside, before it is given another body for the first time."""
    function = find(connection, target.place.schema, name)
    own = next((s for s in models.searched(connection, target.place.schema, name) if s.own and s.body == name), None)
    if function is None or own is None:
        return
    kept = _name(name, own.model)
    copy = define_as(connection, function, kept)
    connection.execute(f"ALTER FUNCTION {signature(connection, copy.oid)} OWNER TO {quoted(function.owner)}")
    grant_alike(connection, function, kept)
    models.search_by(connection, own.model, name, kept, own=True)
    give_body(connection, function, f"-- {MADE}\nBEGIN\nEND")


def _recreated(connection: Connection, target: Target[LivePlace], name: str) -> Function | None:
    """A function that somebody dropped since it was switched, to be given a body; None where there was none."""
    own = next((s for s in models.searched(connection, target.place.schema, name) if s.own), None)
    was = find(connection, target.place.schema, own.body) if own and own.body != name else None
    if was is None:
        return None
    function = define_as(connection, was, name)
    connection.execute(f"ALTER FUNCTION {signature(connection, function.oid)} OWNER TO {quoted(was.owner)}")
    grant_alike(connection, was, name)
    give_body(connection, function, f"-- {MADE}\nBEGIN\nEND")
    return find(connection, target.place.schema, name)


def _restore_own(connection: Connection, function: Function, own: Searched) -> None:
    """The application's function as it was."""
    if was := find(connection, function.schema, own.body):
        define_as(connection, was, function.name)
        drop(connection, was)
        models.search_by(connection, own.model, function.name, function.name, own=True)


def _move_second(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """Gives what a match_…_v2 of 0.1 says a name of its own: that one searched one model."""
    second = find(connection, target.place.schema, _second(name))
    for searched in models.searched(connection, target.place.schema, name):
        if second and searched.body == second.name:
            made = _name(name, searched.model)
            copy = define_as(connection, second, made)
            note = f"{MADE}: the nearest rows by {searched.model.table}.{searched.model.column_name}"
            connection.execute(
                f"COMMENT ON FUNCTION {signature(connection, copy.oid)} IS {sql.Literal(note).as_string()}"
            )
            grant_alike(connection, second, made)
            models.search_by(connection, searched.model, name, made, own=False)


def _drop_bodies(connection: Connection, target: Target[LivePlace], model: Model) -> None:
    """The functions that search a model; those that people call stay."""
    for name, body in models.bodies(connection, model):
        there = find(connection, target.place.schema, body)
        if there and body not in (name, _second(name)):
            drop(connection, there)


def _called(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """The functions that people search the table by."""
    known = models.of_table(connection, target.place.schema, target.place.table)
    return list(dict.fromkeys(name for model in known for name, _ in models.bodies(connection, model)))


def _model(connection: Connection, run_id: str, target: Target[LivePlace]) -> Model:
    model = models.of_run(connection, run_id, target.number)
    assert model, f"run {run_id} has not claimed {target.name}"
    return model


def _second(name: str) -> str:
    return f"{short(name, 60)}_v2"


def _generated(function: Function) -> bool:
    """Whether its body is one that we gave it; those of 0.1 are known by what they call."""
    return MADE in function.definition or f'"{function.name}_v2"("{function.query}"' in function.definition


def _name(function: str, model: Model) -> str:
    return body_name(function, model.dimensions, model.run_id or "", f"{model.table}.{model.column_name}")


def body_name(function: str, dimensions: int | None, run_id: str, column: str) -> str:
    """What searches a model is called; it fits into 63 bytes, and no other run's is called that."""
    return f"{short(function, 47)}_{dimensions or 0}_{suffix(run_id, column)}"
