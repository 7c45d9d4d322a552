-- psql "$DATABASE_URL" -v trigger_room=docs_room -v schema=public -v table=embeddings -f sql/contract_making_room.sql
-- The reverse of expand_making_room.sql.
DROP TRIGGER IF EXISTS :"trigger_room" ON :"schema".:"table";
DROP FUNCTION IF EXISTS vecferry.:"trigger_room"();
