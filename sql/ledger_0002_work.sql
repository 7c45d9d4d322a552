-- psql "$DATABASE_URL" -f sql/ledger_0002_work.sql
-- What a run is accepted with, and who works on it.
ALTER TABLE vecferry.run ADD COLUMN IF NOT EXISTS gates jsonb;
-- The verb that works on the run, or worked on it when it was killed; waiting_until bounds a wait for approval.
ALTER TABLE vecferry.run ADD COLUMN IF NOT EXISTS doing text;
ALTER TABLE vecferry.run ADD COLUMN IF NOT EXISTS waiting_until timestamptz;
