-- psql "$DATABASE_URL" -v schema=public -v table=docs -v role=reader -f sql/grant_owner_alike.sql
-- What is made beside a table belongs to whom the table belongs to.
ALTER TABLE :"schema".:"table" OWNER TO :"role";
