"""The functions that people call, as the registry of models wants them: match_docs, once it was switched, and match_docs_v2.
Both are PL/pgSQL that chooses by the dimensions of the query; what the application's own function was is kept beside."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from psycopg import sql

from tasks.base.words import plural
from tasks.runs import ledger, models, search_bodies
from tasks.runs.models import Model
from tasks.runs.names import short, suffix
from tasks.runs.plan import Target
from tasks.runs.search_bodies import Searched
from tasks.shadows.postgres import search_functions
from tasks.shadows.postgres.search_functions import columns
from tasks.stores.postgres.catalogue import (
    MADE,
    Function,
    close,
    define_as,
    describe_as,
    drop,
    find,
    give_body,
    give_to,
    open_alike,
)
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace

Body = Callable[[Connection, Target[LivePlace], str], None]
"""Makes a function, of the name that it gets, that searches a target's new vectors: what the application calls decides with
which arguments, ``search_functions.make`` with those of match_docs."""


def make_body(
    connection: Connection, target: Target[LivePlace], model: Model, name: str, body: Body = search_functions.make
) -> None:
    """Makes and notes what searches the model, that of the target, for those who call ``name``."""
    made, function = name_of(name, model), find(connection, target.place.schema, name, switched=True)
    body(connection, target, made)
    if function:
        copy = find(connection, target.place.schema, made)
        assert copy
        open_alike(connection, function, copy)
    search_bodies.note(connection, model, name, made, own=False)


def generate(connection: Connection, target: Target[LivePlace], called: Sequence[str]) -> None:
    """The functions that people call, from the registry as it is now."""
    chain = models.ways_back(connection, target.place.schema, target.place.table)
    for name in called:
        _move_second(connection, target, name)
        function = find(connection, target.place.schema, name, switched=True)
        _complete(connection, chain, name)
        by_model = {s.model.model: s for s in search_bodies.of_function(connection, target.place.schema, name)}
        serving = [by_model[m.model] for m in chain if m.model in by_model]
        if function is None:
            function = _recreated(connection, target, name)
        if function and serving and is_generated(function):
            if len(serving) == 1 and serving[0].own:
                _restore_own(connection, function, serving[0])
            else:
                give_body(connection, function, _choice(connection, function, serving))
        make_second(connection, target, name)


def _complete(connection: Connection, chain: Sequence[Model], name: str) -> None:
    """What searches the models of runs that people are switched to, where it is missing: 0.1 called it match_…_v2 for every
    run, so that a later run took it from an earlier one."""
    for model in chain:
        if model.run_id and model.target is not None and not search_bodies.of_model(connection, model):
            made = ledger.get(connection, model.run_id).plan.targets[model.target]
            if made.place.function == name:
                make_body(connection, made, model, name)


def make_second(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """match_…_v2, where the name is free or ours."""
    _move_second(connection, target, name)
    second, function = second_name(name), find(connection, target.place.schema, name, switched=True)
    there = find(connection, target.place.schema, second, switched=True)
    if there and not there.made:
        return
    known = search_bodies.of_function(connection, target.place.schema, name)
    if not any(s.model.run_id for s in known):
        if there:
            drop(connection, there)
        return
    returned = columns(target, function)
    if there and there.columns != returned:
        drop(connection, there)  # what a function returns cannot be replaced
        there = None
    what = f"the vectors of {target.place.schema}.{target.place.table} that have the query's dimensions"
    connection.execute(search_functions.created(target.place.schema, second, returned, what, "BEGIN\nEND", "plpgsql"))
    made = find(connection, target.place.schema, second, switched=True)
    assert made
    give_body(connection, made, _choice(connection, made, _for_second(known, function)))
    if function and there is None:
        open_alike(connection, function, made)
    # PostgREST looks at the catalogue again; elsewhere nobody listens.
    connection.execute("NOTIFY pgrst, 'reload schema'")


def _for_second(known: Sequence[Searched], function: Function | None) -> list[Searched]:
    """The models in the order in which match_…_v2 looks for one; what the application's own function searches comes last,
    and that function is asked for it, lest rights of its owner's be open to others."""
    ordered = sorted(known, key=lambda s: (not (s.model.state == "active" and s.model.run_id), not s.model.run_id))
    if function is None or _is_of_0_1(function):  # which calls match_…_v2
        return ordered
    return [replace(s, body=function.name) if s.own else s for s in ordered]


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
    words = f"{name} serves queries of {named} {plural(served[-1], 'dimension')}, not ".replace("%", "%%")
    return f"RAISE EXCEPTION {sql.Literal(f'{words}%').as_string()}, {dims} USING ERRCODE = 'data_exception';"


def keep_own(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """Puts the application's own function aside, before it is given another body for the first time."""
    function = find(connection, target.place.schema, name, switched=True)
    own = next(
        (s for s in search_bodies.of_function(connection, target.place.schema, name) if s.own and s.body == name), None
    )
    if function is None or own is None:
        return
    kept = name_of(name, own.model)
    copy = define_as(connection, function, kept)
    give_to(connection, copy, function.owner)
    if function.definer:
        close(connection, replace(copy, owner=function.owner))  # the function calls it with the rights of its owner
    else:
        open_alike(connection, function, copy)
    search_bodies.note(connection, own.model, name, kept, own=True)
    give_body(connection, function, f"-- {MADE}\nBEGIN\nEND")


def _recreated(connection: Connection, target: Target[LivePlace], name: str) -> Function | None:
    """A function that somebody dropped since it was switched, to be given a body; None where there was none."""
    own = next((s for s in search_bodies.of_function(connection, target.place.schema, name) if s.own), None)
    was = find(connection, target.place.schema, own.body) if own and own.body != name else None
    if was is None:
        return None
    function = define_as(connection, was, name)
    give_to(connection, function, was.owner)
    open_alike(connection, was, function)
    give_body(connection, function, f"-- {MADE}\nBEGIN\nEND")
    return find(connection, target.place.schema, name, switched=True)


def _restore_own(connection: Connection, function: Function, own: Searched) -> None:
    """The application's function as it was."""
    if was := find(connection, function.schema, own.body):
        define_as(connection, was, function.name)
        drop(connection, was)
        search_bodies.note(connection, own.model, function.name, function.name, own=True)


def _move_second(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """Gives what a match_…_v2 of 0.1 says a name of its own: that one searched one model."""
    second = find(connection, target.place.schema, second_name(name), switched=True)
    for searched in search_bodies.of_function(connection, target.place.schema, name):
        if second and searched.body == second.name:
            made = name_of(name, searched.model)
            copy = define_as(connection, second, made)
            describe_as(connection, copy, f"the nearest rows by {searched.model.table}.{searched.model.column_name}")
            open_alike(connection, second, copy)
            search_bodies.note(connection, searched.model, name, made, own=False)


def drop_bodies(connection: Connection, target: Target[LivePlace], model: Model, only: str | None = None) -> None:
    """The functions that search a model, for all who do or those who call one function; those that people call stay."""
    for name, body in search_bodies.of_model(connection, model):
        if only not in (None, name):
            continue
        there = find(connection, target.place.schema, body)
        if there and body not in (name, second_name(name)):
            drop(connection, there)


def called(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """The functions that people search the table by."""
    known = models.of_table(connection, target.place.schema, target.place.table)
    return list(dict.fromkeys(name for model in known for name, _ in search_bodies.of_model(connection, model)))


def second_name(name: str) -> str:
    return f"{short(name, 60)}_v2"


def is_generated(function: Function) -> bool:
    """Whether its body is one that we gave it."""
    return MADE in function.definition or _is_of_0_1(function)


def _is_of_0_1(function: Function) -> bool:
    """Whether 0.1 gave it its body, which is known by what it calls."""
    return f'"{function.name}_v2"("{function.query}"' in function.definition


def name_of(function: str, model: Model) -> str:
    """What searches the model is called."""
    return body_name(function, model.dimensions, model.run_id or "", f"{model.table}.{model.column_name}")


def body_name(function: str, dimensions: int | None, run_id: str, column: str) -> str:
    """What searches a model is called; it fits into 63 bytes, and no other run's is called that."""
    return f"{short(function, 47)}_{dimensions or 0}_{suffix(run_id, column)}"
