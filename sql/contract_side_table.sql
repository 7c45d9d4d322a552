-- psql "$DATABASE_URL" -v side=docs__2 -v view=docs__2_rows -f sql/contract_side_table.sql
DROP VIEW IF EXISTS vecferry.:"view";
DROP TABLE IF EXISTS vecferry.:"side";
