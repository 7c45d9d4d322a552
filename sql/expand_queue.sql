-- psql "$DATABASE_URL" -v queue=docs__1_queue -v schema=public -v table=docs -v trigger_write=docs_write -v trigger_update=docs_update -v trigger_truncate=docs_truncate -v key='($1).id::text' -v changed='ROW(OLD.document, OLD.id)::record OPERATOR(pg_catalog.*<>) ROW(NEW.document, NEW.id)::record' -f sql/expand_queue.sql
-- The queue of rows to embed again. The triggers fire under replication too, and for an update only when text or key change.
CREATE TABLE IF NOT EXISTS vecferry.:"queue" (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text);
-- Since when a row waits, by the clock and by the transaction that changed it.
ALTER TABLE vecferry.:"queue" ADD COLUMN IF NOT EXISTS noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN IF NOT EXISTS noted_in xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE OR REPLACE TRIGGER :"trigger_write" AFTER INSERT OR DELETE ON :"schema".:"table"
    FOR EACH ROW EXECUTE FUNCTION vecferry.note_change(:'queue', :'key');
CREATE OR REPLACE TRIGGER :"trigger_update" AFTER UPDATE ON :"schema".:"table"
    FOR EACH ROW WHEN (:changed) EXECUTE FUNCTION vecferry.note_change(:'queue', :'key');
CREATE OR REPLACE TRIGGER :"trigger_truncate" AFTER TRUNCATE ON :"schema".:"table"
    FOR EACH STATEMENT EXECUTE FUNCTION vecferry.note_change(:'queue');
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"trigger_write";
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"trigger_update";
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"trigger_truncate";
