-- psql "$DATABASE_URL" -v schema=public -v table=docs -v ids="'{a,b}'" -f sql/sync_remove.sql
DELETE FROM :"schema".:"table" WHERE id = ANY(:ids);
