-- psql "$DATABASE_URL" -v trigger_room=docs_room -v schema=public -v table=embeddings -v chunk=chunk -v model=model -v numbers='6, 7' -v live=public.docs -v key=id -v side=docs__2 -f sql/expand_making_room.sql
-- Has an INSERT of the application's win where a run has brought in a vector of the same row and model.
CREATE OR REPLACE TRIGGER :"trigger_room" BEFORE INSERT ON :"schema".:"table"
    FOR EACH ROW WHEN (NEW.:"model" IN (:numbers) AND pg_catalog.current_setting('vecferry.writing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION vecferry.make_room(:'live', :'key', :'chunk', :'model', :'side');
ALTER TABLE :"schema".:"table" ENABLE ALWAYS TRIGGER :"trigger_room";
