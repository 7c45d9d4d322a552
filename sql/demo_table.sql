-- psql "$DATABASE_URL" -f sql/demo_table.sql
-- What `vecferry demo text-384-to-1536` migrates: a table of docstrings with vectors of 384 dimensions.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE docstrings (
    id        bigint PRIMARY KEY,
    module    text NOT NULL,
    name      text NOT NULL,
    public    boolean NOT NULL,
    content   text NOT NULL,
    embedding vector(384)
);
