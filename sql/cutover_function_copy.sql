-- psql "$DATABASE_URL" -v schema=public -v function=match_docs_384_1 -v definition='(n integer) RETURNS integer LANGUAGE sql AS $$ SELECT n $$' -f sql/cutover_function_copy.sql
-- A function under another name: the definition is what pg_get_functiondef gives, from its arguments on.
CREATE OR REPLACE FUNCTION :"schema".:"function" :definition;
