-- psql "$DATABASE_URL" -v schema=vecferry -v table=docs__1 -v constraint=docs_pkey_1 -v key=id -f sql/expand_primary_key.sql
ALTER TABLE :"schema".:"table" ADD CONSTRAINT :"constraint" PRIMARY KEY (:key);
