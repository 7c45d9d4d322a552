-- psql "$DATABASE_URL" -v relations='vecferry.docs__2, vecferry.active_space' -v role=reader -f sql/grant_reading.sql
-- Who reads the live table reads what lies beside it, and which space is active.
GRANT USAGE ON SCHEMA vecferry TO :role;
GRANT SELECT ON :relations TO :role;
