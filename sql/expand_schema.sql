-- psql "$DATABASE_URL" -f sql/expand_schema.sql
-- Where the ledger is, and whatever nobody reads yet.
CREATE SCHEMA IF NOT EXISTS vecferry;
