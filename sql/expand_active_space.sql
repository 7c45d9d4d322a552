-- psql "$DATABASE_URL" -f sql/expand_active_space.sql
-- Which vectors of a live table are meant now. An application reads it: SELECT dimensions FROM vecferry.active_space WHERE table_name = 'docs'
CREATE TABLE IF NOT EXISTS vecferry.active_space (
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    column_name  text NOT NULL,
    dimensions   integer NOT NULL,
    space        text NOT NULL,
    run_id       text,
    switched_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_schema, table_name)
);
