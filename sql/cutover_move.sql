-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -v step=docs__moving -v to_schema=public -v to_table=docs_new -f sql/cutover_move.sql
-- By a name that is free in both schemas: on the way a shadow and a final name never collide.
ALTER TABLE :"schema".:"table" RENAME TO :"step";
ALTER TABLE :"schema".:"step" SET SCHEMA :"to_schema";
ALTER TABLE :"to_schema".:"step" RENAME TO :"to_table";
