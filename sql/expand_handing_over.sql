-- psql "$DATABASE_URL" -v trigger_vector=docs_vector -v schema=public -v table=docs -v handed="pg_catalog.starts_with(pg_catalog.current_setting('vecferry.handed', true), pg_catalog.concat('docs__2', ROW(OLD.id)::text, ':'))" -v side=docs__2 -v keys=k1 -v values='($1).id' -v type='vector(384)' -v queue=docs__1_queue -v key='($1).id::text' -f sql/expand_handing_over.sql
-- Takes the vector that an UPDATE of the application's hands over, and writes it beside the table.
CREATE OR REPLACE TRIGGER :"trigger_vector" BEFORE UPDATE ON :"schema".:"table"
    FOR EACH ROW WHEN (:handed)
    EXECUTE FUNCTION vecferry.write_beside(:'side', :'keys', :'values', :'type', :'queue', :'key');
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"trigger_vector";
