"""The bodies of the SQL functions that search by several models."""

from collections.abc import Sequence
from contextlib import suppress

from psycopg import sql

from tasks.base.errors import UsageError
from tasks.base.words import typed
from tasks.runs import registry
from tasks.runs.coverage import lies_with_chunks
from tasks.runs.registry import RegisteredModel
from tasks.stores.postgres import pgvector
from tasks.stores.postgres.model_tables import ModelTables

NAME = "search_chunks"
CANDIDATES = 20
"""Chunks of each model that are fused, or ``top_k`` where that is more: half of what an HNSW index
looks at by itself, so that two models that share one need not look twice."""
RANK_CONSTANT = 60
"""k of reciprocal rank fusion, as its authors have it (Cormack, Clarke and Büttcher, SIGIR 2009)."""
UNKNOWN, MISFIT = "undefined_object", "data_exception"
"""The conditions that are raised for a model that is not to be searched, and for a vector that is not one of its model's."""


def name_of(model: RegisteredModel) -> str:
    """What the function of one model is called."""
    return f"{NAME}_{model.number}"


def spellings(models: Sequence[RegisteredModel]) -> dict[str, int]:
    """What each model may be called, as the registry has it, and its number."""
    names = {n for m in models for n in (m.name, m.bare, m.name.partition("?")[0], m.bare.partition("?")[0])}
    meant = {}
    for name in sorted({*names, *(name.rpartition("/")[2] for name in names)}):
        with suppress(UsageError):  # it may be several
            meant[name] = registry.among(list(models), name).number
    return meant


def of_model(tables: ModelTables, model: RegisteredModel, extension: str) -> sql.Composed:
    """The body for one model. The index gives the order in which chunks come; what is returned is sorted by the similarity of
    whole vectors, also where the index is on halves. Parameters by their numbers: a column may have any name."""
    layout = model.layout
    beside = not lies_with_chunks(tables, model)
    vector = _column("e" if beside else "c", model.column)
    operator = sql.SQL(f"OPERATOR({extension}.{pgvector.OPERATOR[layout.metric]})")
    kind = sql.SQL(f"{extension}.{layout.index_type or layout.type}({layout.dimensions})")
    indexed = vector if layout.index_type == layout.type else sql.SQL("({}::{})").format(vector, kind)
    distance = sql.SQL("({} {} $1::{})").format(
        vector, operator, sql.SQL(f"{extension}.{layout.type}({layout.dimensions})")
    )
    similarity = {"cosine": "1 - {}", "l2": "1 / (1 + {})", "ip": "-{}"}[layout.metric]
    threshold = sql.Literal(model.similarity_threshold)
    documents, chunks = tables.documents, tables.chunks
    return sql.SQL(
        "SELECT n.chunk_id, n.document_id, n.title, n.content, n.similarity, {name}::text, "
        "row_number() OVER (ORDER BY n.similarity DESC, n.chunk_id) FROM ("
        "SELECT c.{key}::{key_type} AS chunk_id, {document}::{document_type} AS document_id, {title}::text AS title, "
        "c.{text}::text AS content, ({similarity})::double precision AS similarity "
        "FROM {places} WHERE {of_model}{vector} IS NOT NULL{matching} "
        "ORDER BY {indexed} {operator} $1::{kind} LIMIT $2) AS n "
        "WHERE n.similarity <> 'NaN' AND n.similarity >= coalesce($4, {threshold}::double precision, '-Infinity') "
        "ORDER BY n.similarity DESC, n.chunk_id"
    ).format(
        name=sql.Literal(model.name),
        key=sql.Identifier(chunks.key),
        key_type=sql.SQL(chunks.key_type),
        document=_column(_documents_at(tables), documents.key),
        document_type=sql.SQL(documents.key_type),
        title=_column(_documents_at(tables), documents.title) if documents.title else sql.SQL("NULL"),
        text=sql.Identifier(chunks.text),
        similarity=sql.SQL(similarity).format(distance),
        places=_places(tables, beside),
        of_model=sql.SQL("e.{} = {} AND ").format(sql.Identifier(tables.embeddings.model), sql.Literal(model.id))
        if beside
        else sql.SQL(""),
        vector=vector,
        matching=_matching(tables),
        indexed=indexed,
        operator=operator,
        kind=kind,
        threshold=threshold,
    )


def _places(tables: ModelTables, beside: bool) -> sql.Composed:
    """Inner joins: what the caller may not see of a chunk or of its document is no answer."""
    chunks, documents, embeddings = tables.chunks, tables.documents, tables.embeddings
    places = sql.SQL("{} AS c").format(chunks.identifier)
    if beside:
        places = sql.SQL("{} AS e JOIN {} ON c.{} = e.{}").format(
            embeddings.identifier, places, sql.Identifier(chunks.key), sql.Identifier(embeddings.chunk)
        )
    if _documents_at(tables) == "d":
        places = sql.SQL("{} JOIN {} AS d ON d.{} = c.{}").format(
            places, documents.identifier, sql.Identifier(documents.key), sql.Identifier(chunks.document)
        )
    return places


def _documents_at(tables: ModelTables) -> str:
    """What the documents are called in a query: a chunk may be its document."""
    return "c" if tables.documents.identifier == tables.chunks.identifier else "d"


def _metadata(tables: ModelTables) -> list[sql.Composed]:
    """The columns that a filter looks into."""
    whole = {("c", tables.chunks.metadata): None, (_documents_at(tables), tables.documents.metadata): None}
    return [_column(table, name) for table, name in whole if name]


def _matching(tables: ModelTables) -> sql.Composable:
    """The condition that the filter makes: the metadata of the chunk or of its document contains it."""
    contain = sql.SQL(" OR ").join(sql.SQL("{}::jsonb @> $3").format(column) for column in _metadata(tables))
    return sql.SQL(" AND ($3 IS NULL OR {})").format(contain) if _metadata(tables) else sql.SQL("")


def choice(tables: ModelTables, models: Sequence[RegisteredModel], extension: str) -> sql.Composed:
    """The body that chooses a model. Inside, parameters are meant by their own names, and columns by their tables'."""
    searched = [model for model in models if model.searched]
    active = next((model.number for model in searched if model.active), None)
    names = ", ".join(sorted(model.name for model in searched)) or "none yet"
    whens = [
        sql.SQL("WHEN $3 = {} THEN {}").format(sql.Literal(name), sql.Literal(number))
        for name, number in spellings(models).items()
    ]
    number = sql.SQL("(CASE WHEN $3 IS NULL THEN {} {} END)").format(sql.Literal(active), sql.SQL(" ").join(whens))
    asked = [
        sql.SQL(
            "WHEN {number} THEN IF {dims}($1) <> {dimensions} THEN {misfit} END IF; "
            "RETURN QUERY SELECT s.* FROM {function}($1, $2, $4, $5) AS s;"
        ).format(
            number=sql.Literal(model.number),
            dims=sql.SQL(f"{extension}.vector_dims"),
            dimensions=sql.Literal(model.layout.dimensions),
            misfit=_raised(
                MISFIT,
                sql.SQL("concat('the query vector has ', {}($1), {})").format(
                    sql.SQL(f"{extension}.vector_dims"),
                    sql.Literal(f" dimensions, and {model.name} has {model.layout.dimensions:,}"),
                ),
                "embed the query by the model that is searched",
            ),
            function=sql.Identifier(tables.schema, name_of(model)),
        )
        for model in searched
    ]
    refused = [
        sql.SQL("WHEN {} THEN {}").format(
            sql.Literal(model.number),
            _raised(
                UNKNOWN,
                sql.Literal(
                    f"{model.name} is {'no longer searched' if model.ended else 'being made, and not searched yet'}"
                ),
                f"vecferry models setup {typed(model.name)} brings it back; the models that are searched: {names}"
                if model.ended
                else f"vecferry status shows the run that makes it; the models that are searched: {names}",
            ),
        )
        for model in models
        if not model.searched
    ]
    nobody = _raised(
        UNKNOWN,
        sql.SQL("CASE WHEN $3 IS NULL THEN {} ELSE concat({}, $3) END").format(
            sql.Literal("no model is active"), sql.Literal("no model of these tables is called ")
        ),
        f"the models that are searched: {names}; vecferry models setup MODEL adds one, vecferry models activate NAME makes one the default",
    )
    chosen = nobody + sql.SQL(" ")
    if branches := [*asked, *refused]:  # a CASE has one branch at least
        chosen = sql.SQL("CASE {} {} ELSE {} END CASE; ").format(number, sql.SQL("\n").join(branches), nobody)
    filterless = _raised(
        MISFIT,
        sql.Literal("these tables have no metadata to filter by"),
        f"a filter looks into a jsonb column of {tables.chunks} or {tables.documents}",
    )
    return sql.SQL(
        "#variable_conflict use_column\n"
        "DECLARE nearest double precision; BEGIN {filterless}{chosen}"
        "IF NOT FOUND AND $5 IS DISTINCT FROM '-Infinity' THEN "
        "SELECT s.similarity INTO nearest FROM {function}($1, 1, $3, $4, '-Infinity') AS s; "
        "IF nearest IS NOT NULL THEN RAISE NOTICE "
        "'nothing is similar enough: the nearest chunk has a similarity of %, and the threshold is higher', "
        "round(nearest::numeric, 4); END IF; END IF; END"
    ).format(
        chosen=chosen,
        filterless=sql.SQL("")
        if _metadata(tables)
        else sql.SQL("IF $4 IS NOT NULL THEN {} END IF; ").format(filterless),
        function=sql.Identifier(tables.schema, NAME),
    )


def fusion(tables: ModelTables) -> sql.Composed:
    """The body that asks several models: a chunk's score is the sum over the models that have it of 1 / (60 + its rank)."""
    unlike = "name each model once, and give it one query vector: models named: %, vectors given: %"
    return sql.SQL(
        "#variable_conflict use_column\n"
        "BEGIN IF $3 NOT IN ('union', 'intersection') THEN RAISE EXCEPTION "
        "'aggregation must be union or intersection, got %', $3 USING ERRCODE = {misfit}; END IF; "
        "IF cardinality($2) = 0 OR cardinality($1) <> cardinality($2) "
        "OR cardinality($2) <> (SELECT count(DISTINCT u.name) FROM unnest($2) AS u (name)) "
        "THEN RAISE EXCEPTION {unlike}, cardinality($2), cardinality($1) USING ERRCODE = {misfit}; END IF; "
        "RETURN QUERY WITH hit AS MATERIALIZED ("
        "SELECT u.place, s.* FROM unnest($1, $2) WITH ORDINALITY AS u (query, name, place) "
        "CROSS JOIN LATERAL {function}(u.query, greatest($4, {candidates}), u.name, $5, $6) AS s), "
        "fused AS (SELECT h.chunk_id, (array_agg(h.document_id))[1] AS document_id, (array_agg(h.title))[1] AS title, "
        "(array_agg(h.content))[1] AS content, sum(1::double precision / ({constant} + h.rank)) AS score, "
        "array_agg(h.model ORDER BY h.place) AS models, array_agg(h.rank ORDER BY h.place) AS ranks, "
        "array_agg(h.similarity ORDER BY h.place) AS similarities FROM hit AS h GROUP BY h.chunk_id "
        "HAVING $3 = 'union' OR count(*) = cardinality($2)) "
        "SELECT f.*, row_number() OVER (ORDER BY f.score DESC, f.chunk_id) FROM fused AS f "
        "ORDER BY f.score DESC, f.chunk_id LIMIT $4; END"
    ).format(
        misfit=sql.Literal(MISFIT),
        unlike=sql.Literal(unlike),
        function=sql.Identifier(tables.schema, NAME),
        candidates=sql.Literal(CANDIDATES),
        constant=sql.Literal(RANK_CONSTANT),
    )


def _raised(condition: str, message: sql.Composable, hint: str) -> sql.Composed:
    return sql.SQL("RAISE EXCEPTION USING ERRCODE = {}, MESSAGE = {}, HINT = {};").format(
        sql.Literal(condition), message, sql.Literal(hint)
    )


def _column(table: str, name: str) -> sql.Composed:
    return sql.SQL("{}.{}").format(sql.SQL(table), sql.Identifier(name))
