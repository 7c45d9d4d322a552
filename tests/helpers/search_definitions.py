"""Search functions as people have them: each made by a statement, called by an expression, over a table ``docs``.

``{d}`` are the dimensions of the vectors, ``{q}`` a query's vector as a literal without its type; ``{schema}`` is where table and
function are. An ideal function is the same statement over a table that has the new vectors under the old name.
"""

from dataclasses import dataclass

TABLE = (
    "CREATE TABLE {schema}.docs (id bigint PRIMARY KEY, content text, user_id text, published boolean, metadata jsonb, "
    "embedding vector({d})); CREATE TABLE {schema}.users (user_id text PRIMARY KEY, name text, embedding real[])"
)
RESULT = "RETURNS TABLE (id bigint, content text, similarity float)"
CALL = "SELECT * FROM {schema}.match_docs('{q}'::vector, -1, 8)"


@dataclass(frozen=True)
class Definition:
    """One search function."""

    name: str
    create: str
    call: str = CALL
    type: str = "vector"
    """Of the old column."""
    dispatched: bool = True
    """Whether the query tells which vectors are meant, so that old queries are still answered after the switch."""


def _usual(where: str = "", options: str = "", d: str = "d") -> str:
    return (
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_threshold float, match_count int) {RESULT} "
        f"LANGUAGE sql STABLE {options} AS $$ SELECT {d}.id, {d}.content, 1 - ({d}.embedding <=> query_embedding) AS similarity "
        f"FROM {{schema}}.docs {d} WHERE {where} 1 - ({d}.embedding <=> query_embedding) > match_threshold "
        f"ORDER BY {d}.embedding <=> query_embedding LIMIT match_count $$"
    )


DEFINITIONS = [
    Definition("usual", _usual()),
    Definition(
        "own rows of a user, by the function's owner",
        _usual(
            "d.user_id = current_setting('app.reader', true) AND",
            "SECURITY DEFINER SET search_path = pg_catalog, public",
        ),
    ),
    Definition("published rows", _usual("d.published AND")),
    Definition("volatile, as it is without a word", _usual().replace("LANGUAGE sql STABLE", "LANGUAGE sql")),
    Definition("strict, parallel, cost and rows", _usual(options="STRICT PARALLEL SAFE COST 50 ROWS 8")),
    Definition(
        "count first",
        f"CREATE FUNCTION {{schema}}.match_docs(match_count int, query_embedding vector({{d}}), match_threshold float) {RESULT} "
        "LANGUAGE sql STABLE AS $$ SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding) AS similarity FROM {schema}.docs d "
        "WHERE 1 - (d.embedding <=> query_embedding) > match_threshold ORDER BY similarity DESC LIMIT match_count $$",
        "SELECT * FROM {schema}.match_docs(8, '{q}'::vector, -1)",
    ),
    Definition(
        "jsonb filter and defaults, PL/pgSQL",
        "CREATE FUNCTION {schema}.match_docs(query_embedding vector({d}), match_count int DEFAULT NULL, filter jsonb DEFAULT '{{}}') "
        "RETURNS TABLE (id bigint, content text, metadata jsonb, similarity float) LANGUAGE plpgsql AS $$ #variable_conflict use_column\n"
        "BEGIN RETURN QUERY SELECT id, content, metadata, 1 - (docs.embedding <=> query_embedding) FROM {schema}.docs "
        "WHERE metadata @> filter ORDER BY docs.embedding <=> query_embedding LIMIT match_count; END $$",
        "SELECT * FROM {schema}.match_docs(query_embedding => '{q}'::vector, match_count => 5, filter => '{{\"kind\": 1}}')",
    ),
    Definition(
        "id first",
        "CREATE FUNCTION {schema}.match_docs(of_user text, query_embedding vector({d}), match_count bigint DEFAULT 5) "
        "RETURNS TABLE (id bigint, distance float) LANGUAGE sql STABLE AS $$ SELECT id, embedding <=> query_embedding AS distance "
        "FROM {schema}.docs WHERE user_id = of_user ORDER BY distance LIMIT match_count $$",
        "SELECT * FROM {schema}.match_docs('user 1', '{q}'::vector)",
    ),
    Definition(
        "rows of the table",
        "CREATE FUNCTION {schema}.match_docs(query_embedding vector({d}), match_count int) RETURNS SETOF {schema}.docs LANGUAGE sql STABLE "
        "AS $$ SELECT * FROM {schema}.docs ORDER BY docs.embedding <=> query_embedding ASC LIMIT least(match_count, 200) $$",
        "SELECT id, content, user_id, published, metadata FROM {schema}.match_docs('{q}'::vector, 8)",
    ),
    Definition(
        "the vector is handed out",
        "CREATE FUNCTION {schema}.match_docs(query_embedding vector({d}), match_threshold float, match_count int) "
        "RETURNS TABLE (id bigint, content text, embedding vector, similarity float) LANGUAGE sql STABLE AS $$ "
        "SELECT d.id, d.content, d.embedding, 1 - (d.embedding <=> query_embedding) FROM {schema}.docs d "
        "ORDER BY d.embedding <=> query_embedding LIMIT match_count $$",
    ),
    Definition(
        "arguments after the function's name",
        f"CREATE FUNCTION {{schema}}.match_docs(embedding vector({{d}}), threshold float, count int) {RESULT} LANGUAGE plpgsql STABLE AS $$ "
        "BEGIN RETURN QUERY SELECT docs.id, docs.content, 1 - (docs.embedding <=> match_docs.embedding) FROM {schema}.docs "
        "WHERE 1 - (docs.embedding <=> match_docs.embedding) > threshold ORDER BY docs.embedding <=> match_docs.embedding LIMIT count; END $$",
    ),
    Definition(
        "arguments without names",
        f"CREATE FUNCTION {{schema}}.match_docs(vector, float, int) {RESULT} LANGUAGE sql STABLE AS $$ SELECT id, content, 1 - (embedding <=> $1) "
        "FROM {schema}.docs WHERE 1 - (embedding <=> $1) > $2 ORDER BY embedding <=> $1 LIMIT $3 $$",
    ),
    Definition(
        "joined with another table that has a column of that name",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_threshold float, match_count int) {RESULT} LANGUAGE sql STABLE "
        "AS $$ SELECT d.id, u.name || ': ' || d.content, 1 - (d.embedding <=> query_embedding) FROM {schema}.docs AS d "
        "LEFT JOIN {schema}.users AS u USING (user_id) WHERE u.embedding IS NULL ORDER BY d.embedding <=> query_embedding LIMIT match_count $$",
    ),
    Definition(
        "a common table expression over all columns",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_threshold float, match_count int) {RESULT} LANGUAGE sql STABLE "
        "AS $$ WITH visible AS (SELECT * FROM {schema}.docs WHERE published), nearest AS (SELECT id, content, "
        "1 - (visible.embedding <=> query_embedding) AS score FROM visible ORDER BY visible.embedding <=> query_embedding LIMIT match_count) "
        "SELECT id, content, score FROM nearest WHERE score > match_threshold ORDER BY score DESC $$",
    ),
    Definition(
        "a subquery that keeps the column's name",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_threshold float, match_count int) {RESULT} LANGUAGE sql STABLE "
        "AS $$ SELECT x.id, x.content, 1 - (x.embedding <=> query_embedding) FROM (SELECT id, content, embedding FROM {schema}.docs "
        "WHERE user_id IS NOT NULL) AS x ORDER BY x.embedding <=> query_embedding LIMIT match_count $$",
    ),
    Definition(
        "a cast of the query",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding text, match_threshold float, match_count int) {RESULT} LANGUAGE sql STABLE AS $$ "
        "SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding::vector({d})) FROM {schema}.docs d "
        "ORDER BY d.embedding <=> query_embedding::vector({d}) LIMIT match_count $$",
        "SELECT * FROM {schema}.match_docs('{q}', -1, 8)",
    ),
    Definition(
        "a declared vector, a cap and a count",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector, match_threshold float, match_count int) {RESULT} LANGUAGE plpgsql STABLE AS $$ "
        "DECLARE q vector({d}) := query_embedding; many int; BEGIN IF match_count > 5 THEN match_count := 5; END IF; "
        "SELECT count(*) INTO many FROM {schema}.docs WHERE docs.embedding IS NOT NULL; IF many = 0 THEN RETURN; END IF; "
        "RETURN QUERY SELECT d.id, d.content, 1 - (d.embedding <=> q) FROM {schema}.docs d ORDER BY d.embedding <=> q LIMIT match_count; END $$",
    ),
    Definition(
        "a loop over the nearest rows",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_threshold float, match_count int) {RESULT} LANGUAGE plpgsql STABLE "
        "AS $$ DECLARE r record; BEGIN FOR r IN SELECT d.id, d.content, d.embedding <=> query_embedding AS distance FROM {schema}.docs d "
        "ORDER BY d.embedding <=> query_embedding LIMIT match_count LOOP id := r.id; content := r.content; similarity := 1 - r.distance; "
        "RETURN NEXT; END LOOP; END $$",
    ),
    Definition(
        "one object of JSON",
        "CREATE FUNCTION {schema}.match_docs(query_embedding vector({d}), match_threshold float, match_count int) RETURNS jsonb LANGUAGE sql STABLE "
        "AS $$ SELECT jsonb_agg(jsonb_build_object('id', n.id, 'content', n.content)) FROM (SELECT id, content FROM {schema}.docs "
        "ORDER BY embedding <=> query_embedding LIMIT match_count) AS n $$",
    ),
    Definition(
        "output arguments, one row",
        "CREATE FUNCTION {schema}.match_docs(query_embedding vector({d}), OUT id bigint, OUT content text) LANGUAGE sql STABLE AS $$ "
        "SELECT id, content FROM {schema}.docs ORDER BY embedding <=> query_embedding LIMIT 1 $$",
        "SELECT * FROM {schema}.match_docs('{q}'::vector)",
    ),
    Definition(
        "a set of ids",
        "CREATE FUNCTION {schema}.match_docs(query_embedding vector({d}), match_count int) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$ "
        "SELECT id FROM {schema}.docs ORDER BY embedding <=> query_embedding LIMIT match_count $$",
        "SELECT * FROM {schema}.match_docs('{q}'::vector, 8)",
    ),
    Definition(
        "half vectors",
        _usual().replace("vector({d})", "halfvec({d})"),
        CALL.replace("::vector", "::halfvec"),
        type="halfvec",
    ),
    Definition("without dimensions", _usual().replace("vector({d})", "vector"), type="untyped"),
    Definition(
        "a LIMIT of its callers, without dimensions",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector, filter jsonb DEFAULT '{{{{}}}}') {RESULT} LANGUAGE sql STABLE AS $$ "
        "SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding) FROM {schema}.docs d WHERE d.metadata @> filter "
        "ORDER BY d.embedding <=> query_embedding $$",
        "SELECT * FROM {schema}.match_docs('{q}'::vector) LIMIT 8",
        type="untyped",
    ),
    Definition(
        "a LIMIT of its callers, ids, the query an array",
        "CREATE FUNCTION {schema}.match_docs(query real[]) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$ "
        "SELECT id FROM {schema}.docs ORDER BY embedding <=> query::vector({d}) $$",
        "SELECT * FROM {schema}.match_docs('{q}'::vector::real[]) LIMIT 8",
    ),
    Definition(
        "a body that the catalogue holds parsed",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_threshold float, match_count int) {RESULT} LANGUAGE sql STABLE "
        "BEGIN ATOMIC SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding) FROM {schema}.docs d "
        "ORDER BY d.embedding <=> query_embedding LIMIT match_count; END",
    ),
    Definition(
        "written by hand, comments and all",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_threshold float, match_count int) {RESULT} LANGUAGE sql STABLE "
        'AS $$ -- finds é by embedding\nSELECT "d"."id", \'embedding \' || d.content, 1-(d . embedding<=>query_embedding) /* embedding */\n'
        "FROM {schema}.docs \"d\" WHERE d.content NOT LIKE '%{{embedding}}%'\nORDER BY 3 DESC LIMIT match_count $$",
    ),
    Definition(
        "distinct users, a window and a lateral join",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_threshold float, match_count int) {RESULT} LANGUAGE sql STABLE "
        "AS $$ SELECT n.id, n.content, n.similarity FROM {schema}.users u, LATERAL (SELECT d.id, d.content, "
        "1 - (d.embedding <=> query_embedding) AS similarity, row_number() OVER (ORDER BY d.embedding <=> query_embedding) AS place "
        "FROM {schema}.docs d WHERE d.user_id = u.user_id ORDER BY d.embedding <=> query_embedding LIMIT 2) AS n "
        "ORDER BY n.similarity DESC LIMIT match_count $$",
    ),
    Definition(
        "keywords and meaning, fused",
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_threshold float, match_count int, words text DEFAULT 'b') {RESULT} "
        "LANGUAGE sql STABLE AS $$ WITH meant AS (SELECT id, row_number() OVER (ORDER BY embedding <=> query_embedding) AS place FROM {schema}.docs "
        "ORDER BY embedding <=> query_embedding LIMIT match_count * 2), worded AS (SELECT id, row_number() OVER (ORDER BY id) AS place "
        "FROM {schema}.docs WHERE content LIKE '%' || words || '%' LIMIT match_count * 2) SELECT d.id, d.content, "
        "(coalesce(1.0 / (50 + meant.place), 0) + coalesce(1.0 / (50 + worded.place), 0))::float FROM meant FULL JOIN worded USING (id) "
        "JOIN {schema}.docs d USING (id) ORDER BY 3 DESC, 1 LIMIT match_count $$",
    ),
    Definition(
        "rows like a row",
        "CREATE FUNCTION {schema}.match_docs(like_id bigint, match_count int) RETURNS TABLE (id bigint, distance float) LANGUAGE sql STABLE AS $$ "
        "SELECT a.id, a.embedding <=> b.embedding FROM {schema}.docs a, {schema}.docs b WHERE b.id = like_id "
        "ORDER BY a.embedding <=> b.embedding LIMIT match_count $$",
        "SELECT * FROM {schema}.match_docs(3, 8)",
        dispatched=False,
    ),
    Definition(
        "rows like a row, by a key that is a text",
        "CREATE FUNCTION {schema}.match_docs(of_content text, match_count int DEFAULT 5) RETURNS TABLE (id bigint, content text) LANGUAGE sql "
        "STABLE AS $$ SELECT d.id, d.content FROM {schema}.docs d WHERE d.content <> of_content ORDER BY d.embedding <=> "
        "(SELECT s.embedding FROM {schema}.docs s WHERE s.content = of_content) LIMIT match_count $$",
        "SELECT * FROM {schema}.match_docs((SELECT content FROM {schema}.docs WHERE id = 7), 4)",
        dispatched=False,
    ),
]
