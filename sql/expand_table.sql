-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -v type=vector -f sql/expand_table.sql
-- A table of records. Its dimensions, keys and indexes come in files of their own, the last two after the load.
CREATE TABLE :"schema".:"table" (
    id           text NOT NULL,
    document     text,
    metadata     jsonb,
    uri          text,
    embedding    :"type",
    content_hash bytea
);
