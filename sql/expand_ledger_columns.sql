-- psql "$DATABASE_URL" -f sql/expand_ledger_columns.sql
-- What a run's ledger has gained since 0.1.0.
ALTER TABLE vecferry.run ADD COLUMN IF NOT EXISTS gates jsonb;
-- The verb that works on the run, or worked on it when it was killed; waiting_until bounds a wait for approval.
ALTER TABLE vecferry.run ADD COLUMN IF NOT EXISTS doing text;
ALTER TABLE vecferry.run ADD COLUMN IF NOT EXISTS waiting_until timestamptz;
