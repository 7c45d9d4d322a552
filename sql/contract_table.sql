-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -f sql/contract_table.sql
DROP TABLE IF EXISTS :"schema".:"table";
