-- psql "$DATABASE_URL" -1 -f sql/ledger_0006_origins.sql
-- Version 6: the application's own function, from which what searches a model was derived.
ALTER TABLE vecferry.search_function ADD COLUMN IF NOT EXISTS origin jsonb;
