-- psql "$DATABASE_URL" -v privilege=SELECT -v schema=vecferry -v table=docs__1 -v role=reader -v option='WITH GRANT OPTION' -f sql/grant_table_alike.sql
-- What a role may do with the table that steps aside it may do with the one that takes its name.
GRANT :privilege ON :"schema".:"table" TO :role :option;
