-- psql "$DATABASE_URL" -v side=docs__2 -v page="(VALUES ('a')) AS p (k1)" -v same='s.k1 = p.k1' -f sql/sync_live_remove.sql
-- What is known of rows, and their vectors where those lie beside the table.
DELETE FROM vecferry.:"side" AS s USING :page WHERE :same;
