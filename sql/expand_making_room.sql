-- psql "$DATABASE_URL" -v trigger_room=docs_room -v schema=public -v table=embeddings -v model=model -v numbers='6, 7' -v body='BEGIN PERFORM FROM public.docs AS b WHERE b.id = NEW.chunk FOR KEY SHARE; RETURN NEW; END' -f sql/expand_making_room.sql
-- Has an INSERT of the application's win where a run has brought in a vector of the same row and model. The function is this run's own: its
-- statements name tables, and so PostgreSQL plans them once in a session and not for each row: by index, however small the tables are then.
CREATE OR REPLACE FUNCTION vecferry.:"trigger_room"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS :'body';
REVOKE ALL ON FUNCTION vecferry.:"trigger_room"() FROM PUBLIC;
CREATE OR REPLACE TRIGGER :"trigger_room" BEFORE INSERT ON :"schema".:"table"
    FOR EACH ROW WHEN (NEW.:"model" IN (:numbers) AND pg_catalog.current_setting('vecferry.writing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION vecferry.:"trigger_room"();
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"trigger_room";
