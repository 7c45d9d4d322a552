"""The functions that people call, as the registry of models wants them: match_docs, once it was switched, and match_docs_v2.
Both are PL/pgSQL that chooses by the dimensions of the query; what the application's own function was is kept beside."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tasks.runs import ledger, models, search_bodies
from tasks.runs.models import Model
from tasks.runs.names import short, suffix
from tasks.runs.plan import Target
from tasks.runs.search_bodies import Searched
from tasks.shadows.postgres import columns, search_functions
from tasks.shadows.postgres.called import Called, from_json, look_up, origin_of
from tasks.shadows.postgres.choice import choose
from tasks.shadows.postgres.superseded import supersede
from tasks.shadows.postgres.usual_function import make_usual
from tasks.stores.postgres.catalogue import (
    MADE,
    Function,
    define,
    drop,
    find,
    give,
    is_generated,
    is_of_0_1,
    note,
)
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import bare, beside, told
from tasks.stores.postgres.live_table import quoted
from tasks.stores.postgres.places import LivePlace
from tasks.stores.postgres.remaking import remake


def make_body(
    connection: Connection, target: Target[LivePlace], model: Model, name: str, called: str | None = None
) -> None:
    """Makes and notes what searches the model, that of the target, for those who call ``name``; it is ``called`` as it was."""
    made = called or name_of(name, model)
    origin = search_functions.make(connection, target, name, made)
    search_bodies.note(connection, Searched(model, made, False, origin.to_json() if origin else None), name)


def rederive_writing(connection: Connection, target: Target[LivePlace], model: Model) -> None:
    """Makes anew what writes the model's vectors, where it lies beside and would name what is about to be dropped."""
    for name, body in search_bodies.of_model(connection, model):
        if name == target.place.write_function and body != name:
            make_body(connection, target, model, name, body)


def is_outdated(connection: Connection, target: Target[LivePlace], made: Searched, name: str) -> bool:
    """Whether the application's own function is not what the one for new vectors was derived from."""
    origin = origin_of(connection, target, name)
    return origin is not None and made.origin is not None and not origin.is_alike(from_json(made.origin))


def unlike_rights(connection: Connection, target: Target[LivePlace]) -> Iterator[str]:
    """Where rights on a function that people call were changed since, and not those on what was made of it."""
    for name in called(connection, target):
        function = find(connection, target.place.schema, name, switched=True)
        if function is None or not is_generated(function):
            continue
        may = {g.role for g in function.grants} - {function.owner}
        bodies = [s.body for s in search_bodies.of_function(connection, target.place.schema, name)]
        for other in dict.fromkeys([second_name(name), *bodies]):
            made = find(connection, target.place.schema, other, switched=True)
            if made is None or not made.made:
                continue
            have = {g.role for g in made.grants} - {made.owner}
            for role in sorted(have - may, key=str):
                who, what = _who(role), f"REVOKE EXECUTE ON FUNCTION {made.signature} FROM {_grantee(role)}"
                yield f"{who} may execute {told(other)}, and {told(name)} no longer: {what}"
            needed = other in bodies and not function.definer
            for role in sorted(may - have, key=str) if needed else []:
                what = f"GRANT EXECUTE ON FUNCTION {made.signature} TO {_grantee(role)}"
                yield f"{_who(role)} may execute {told(name)}, and not {told(other)}, which it calls: {what}"


def _who(role: str | None) -> str:
    return "everybody" if role is None else role


def _grantee(role: str | None) -> str:
    return "PUBLIC" if role is None else quoted(role)


def overwrite(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """Puts the application's own function, to be given a body, in the place of what somebody has put there."""
    called = look_up(connection, target, name)
    function, own = called.function, called.own
    if function and own and own.origin:
        was = from_json(own.origin).function
        remake(connection, [function], lambda: _make_empty(connection, was))
    elif function:
        drop(connection, function.signature)


def generate(
    connection: Connection, target: Target[LivePlace], called: Sequence[str], standing_in: bool = False
) -> None:
    """The functions that people call, from the registry as it is now; ``standing_in`` where the application's own are to be called
    by others for now."""
    chain = models.ways_back(connection, target.place.schema, target.place.table)
    for name in called:
        _move_second(connection, target, name)
        _complete(connection, chain, name)
        there = look_up(connection, target, name)
        function, by_model = there.function, {s.model.model: s for s in there.known}
        serving = [by_model[m.model] for m in chain if m.model in by_model]
        if function is None and (own := _own(there)):  # somebody dropped it since it was switched
            function = _make_empty(connection, own)
        if function and serving and is_generated(function):
            if len(serving) == 1 and serving[0].own and not standing_in:
                _restore_own(connection, target, there, serving[0])
            else:
                choose(connection, target, there, function, serving)
        make_second(connection, target, name)


def _complete(connection: Connection, chain: Sequence[Model], name: str) -> None:
    """What searches the models of runs that people are switched to, where it is missing: 0.1 called it match_…_v2 for every
    run, so that a later run took it from an earlier one."""
    for model in chain:
        if model.run_id and model.target is not None and not search_bodies.of_model(connection, model):
            made = ledger.get(connection, model.run_id).plan.targets[model.target]
            if name in made.place.functions:
                make_body(connection, columns.current(connection, made), model, name)


def make_second(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """match_…_v2, where the name is free or ours."""
    _move_second(connection, target, name)
    schema, second = target.place.schema, second_name(name)
    there = find(connection, schema, second, switched=True)
    if there and not there.made:
        return
    called = look_up(connection, target, name)
    if not any(s.model.run_id for s in called.known):
        if there:
            drop(connection, there.signature)
        return
    made = remake(connection, [there] if there else [], lambda: _second(connection, target, called))
    note(connection, made, f"the vectors of {schema}.{target.place.table} that have the query's dimensions")
    choose(connection, target, called, made, _for_second(called))
    # PostgREST looks at the catalogue again; elsewhere nobody listens.
    connection.execute("NOTIFY pgrst, 'reload schema'")


def _second(connection: Connection, target: Target[LivePlace], called: Called) -> Function:
    """match_…_v2, to be given a body."""
    if called.origin is None:
        return make_usual(connection, target, second_name(called.name))
    as_it_is = called.function or called.origin.function
    own = replace(called.origin.function, owner=as_it_is.owner, grants=as_it_is.grants)
    return define(connection, own, second_name(called.name), "BEGIN\nEND", "plpgsql")


def _for_second(called: Called) -> list[Searched]:
    """The models in the order in which match_…_v2 looks for one; what the application's own function searches comes last,
    and that function is asked for it, lest rights of its owner's be open to others."""
    ordered = sorted(
        called.known, key=lambda s: (not (s.model.state == "active" and s.model.run_id), not s.model.run_id)
    )
    function = called.function
    if function is None or is_of_0_1(function):  # which calls match_…_v2
        return ordered
    return [replace(s, body=function.name) if s.own else s for s in ordered]


def keep_own(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """Puts the application's own function aside, before it is given another body for the first time."""
    called = look_up(connection, target, name)
    function, origin = called.function, called.origin
    own = next((s for s in called.known if s.own and s.body == name), None)
    if function is None or own is None or origin is None:
        return
    kept = name_of(name, own.model)
    chain = models.ways_back(connection, target.place.schema, target.place.table)
    equal = any(m.model != own.model.model and m.dimensions == own.model.dimensions for m in chain)
    note(connection, search_functions.keep(connection, origin, kept, called=equal), f"what {name} was")
    search_bodies.note(connection, Searched(own.model, kept, True, origin.to_json()), name)
    define(connection, function, body=f"-- {MADE}\nBEGIN\nEND", language="plpgsql")


def stand_in(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """Puts the application's own function aside, and in its place one that calls it."""
    keep_own(connection, target, name)
    called = look_up(connection, target, name)
    function, own = called.function, [s for s in called.known if s.own and s.body != name]
    if function and own and MADE in function.body and "RETURN" not in function.body:
        choose(connection, target, called, function, own[:1])


def _own(called: Called) -> Function | None:
    """The application's own function, of those that were put aside."""
    own, origin = called.own, called.origin
    return origin.function if origin and own and own.body != called.name else None


def _make_empty(connection: Connection, own: Function) -> Function:
    """The function, to be given a body."""
    define(connection, own, body=f"-- {MADE}\nBEGIN\nEND", language="plpgsql")
    function = find(connection, own.schema, own.name, switched=True)
    assert function
    give(connection, function, own.owner, own.grants)
    return find(connection, own.schema, own.name, switched=True) or function


def _restore_own(connection: Connection, target: Target[LivePlace], called: Called, own: Searched) -> None:
    """The application's function as it was."""
    was = find(connection, target.place.schema, own.body)
    origin = from_json(own.origin) if own.origin else was and called.origin
    if origin:
        define(connection, origin.function)
    if was and own.body != called.name:
        supersede(connection, f"{target.place.schema}.{target.place.table}", was)
    search_bodies.note(connection, replace(own, body=called.name, origin=None), called.name)


def _move_second(connection: Connection, target: Target[LivePlace], name: str) -> None:
    """Gives what a match_…_v2 of 0.1 says a name of its own: that one searched one model."""
    for searched in search_bodies.of_function(connection, target.place.schema, name):
        if searched.body != second_name(name):
            continue
        if second := find(connection, target.place.schema, second_name(name), switched=True):
            made = name_of(name, searched.model)
            copy = define(connection, second, made)
            note(connection, copy, f"the nearest rows by {searched.model.table}.{searched.model.column_name}")
            search_bodies.note(connection, replace(searched, body=made, own=False), name)


def drop_bodies(connection: Connection, target: Target[LivePlace], model: Model, only: str | None = None) -> None:
    """The functions that search a model, for all who do or those who call one function; those that people call stay."""
    for name, body in search_bodies.of_model(connection, model):
        if only not in (None, name):
            continue
        there = find(connection, target.place.schema, body)
        if there and body not in (name, second_name(name)):
            drop(connection, there.signature)


def called(connection: Connection, target: Target[LivePlace]) -> list[str]:
    """The functions that people search the table by."""
    known = models.of_table(connection, target.place.schema, target.place.table)
    return list(dict.fromkeys(name for model in known for name, _ in search_bodies.of_model(connection, model)))


def second_name(name: str) -> str:
    return beside(name, f"{short(bare(name), 60)}_v2")


def name_of(function: str, model: Model) -> str:
    """What searches the model is called."""
    return body_name(function, model.dimensions, model.run_id or "", f"{model.table}.{model.column_name}")


def body_name(function: str, dimensions: int | None, run_id: str, column: str) -> str:
    """What searches a model is called; it fits into 63 bytes, and no other run's is called that."""
    return beside(function, f"{short(bare(function), 47)}_{dimensions or 0}_{suffix(run_id, column)}")
