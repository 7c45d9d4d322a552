"""The SQL functions that search a set of tables by its models, made from the registry.

    search_chunks_7(query, top_k, filter, min_similarity)                 one model, its number in its name
    search_chunks(query, top_k, model_name, filter, min_similarity)       the model that is named, else the active one
    search_chunks_multi(queries, model_names, aggregation, top_k, …)      several, fused by reciprocal rank

They are the caller's own queries (SECURITY INVOKER): rights and row level security hold. A model's number and column are
literals in its function, so that partial indexes serve it and no two models of one column are mixed. Which model is active is
a literal too: a search is answered by the model that was active when it began, whatever is switched meanwhile.
"""

from collections.abc import Sequence

from psycopg import sql

from sql import Value, statement
from tasks.base.errors import UsageError
from tasks.runs import registry
from tasks.runs.models import hold
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.models import bodies
from tasks.shadows.postgres.models.bodies import NAME, name_of
from tasks.shadows.postgres.superseded import supersede
from tasks.stores.postgres.catalogue import MADE, Function, dollars, drop, functions, give
from tasks.stores.postgres.connection import Connection, pgvector_schema
from tasks.stores.postgres.model_tables import ModelTables

_ALWAYS = (NAME, f"{NAME}_multi")


FOLLOWS = 140000
"""The PostgreSQL from which on a function can be held parsed."""


def remake(connection: Connection, tables: ModelTables, following: bool = False) -> None:
    """Makes the functions as the registry has it now; those of models that are no longer searched are called no more, and dropped by
    ``drop_superseded``. In the caller's transaction: with it they change. ``following``: those of models are held parsed, so that
    columns may get other names under searches that have begun. Raises UsageError where a function of the user's has one of the
    names."""
    hold(connection)  # two that replace one function at once are an error of PostgreSQL's
    models = registry.listed(connection, tables)
    kept = {*names(models)}
    before = dict[str, Function]()
    for function in _present(connection, tables):
        before[function.name] = function
        if not function.made:
            raise UsageError(
                f"{function.signature} is not vecferry's, and a function of that name is to be made: rename it"
            )
    parsed = following and connection.info.server_version >= FOLLOWS
    # One that is called no more would keep its column from being dropped, if a rename that was killed has left it parsed.
    left = [] if parsed else [m for m in models if not m.searched and name_of(m) in before]
    for made in written(tables, models, pgvector_schema(connection) or "public", parsed, left):
        connection.execute(made)
    for name, function in before.items():
        if name not in kept:
            supersede(connection, str(tables.chunks), function)
    if choosing := before.get(NAME):  # who may call it may call what it calls
        for function in _present(connection, tables):
            if function.name not in before and set(function.grants) != set(choosing.grants):
                give(connection, function, choosing.owner, choosing.grants)
    connection.execute("NOTIFY pgrst, 'reload schema'")


def names(models: Sequence[RegisteredModel]) -> list[str]:
    """What they are called, for these models."""
    return [*(name_of(model) for model in models if model.searched), *_ALWAYS]


def remove(connection: Connection, tables: ModelTables) -> None:
    """Drops all of them."""
    for function in _present(connection, tables):
        if function.made:
            drop(connection, function.signature)


def statements(connection: Connection, tables: ModelTables) -> list[sql.Composed]:
    """What makes the functions, for the models that are searched now."""
    return written(tables, registry.listed(connection, tables), pgvector_schema(connection) or "public")


def written(
    tables: ModelTables,
    models: Sequence[RegisteredModel],
    extension: str,
    parsed: bool = False,
    left: Sequence[RegisteredModel] = (),
) -> list[sql.Composed]:
    """The same for these models; ``extension`` is pgvector's schema, quoted. A body that is held ``parsed`` depends on its columns, and
    keeps people from changing them. ``left``: models that are no longer searched, whose functions are there."""
    searched = [*(model for model in models if model.searched), *left]
    whole: dict[str, Value] = {
        "schema": tables.schema,
        "type": sql.SQL(f"{extension}.vector"),
        "chunk": sql.SQL(tables.chunks.key_type),
        "document": sql.SQL(tables.documents.key_type),
    }
    of_models = [
        statement(
            "expand_model_search",
            function=name_of(model),
            body=_body(bodies.of_model(tables, model, extension), parsed),
            comment=f"{MADE}: the chunks of {tables.chunks} nearest by {model.name}",
            **whole,
        )
        for model in searched
    ]
    choosing = statement(
        "expand_models_search",
        function=NAME,
        body=sql.SQL(dollars(bodies.choice(tables, models, extension).as_string())),
        comment=f"{MADE}: the chunks of {tables.chunks} nearest by one of its models",
        **whole,
    )
    fused = statement(
        "expand_fused_search",
        function=f"{NAME}_multi",
        body=sql.SQL(dollars(bodies.fusion(tables).as_string())),
        comment=f"{MADE}: the chunks of {tables.chunks} nearest by several of its models",
        **whole,
    )
    return [*of_models, choosing, fused]


def _body(query: sql.Composed, parsed: bool) -> sql.SQL:
    says = query.as_string()
    return sql.SQL(f"BEGIN ATOMIC {says}; END" if parsed else f"AS {dollars(says)}")


def _present(connection: Connection, tables: ModelTables) -> list[Function]:
    """The functions that have one of the names now, whosever they are."""
    rows = connection.execute(
        "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident(%s)) AND proname ~ %s",
        (tables.schema, f"^{NAME}(_multi|_[0-9]+)?$"),
    ).fetchall()
    return [function for (name,) in rows for function in functions(connection, tables.schema, name)]
