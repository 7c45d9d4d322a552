-- psql "$DATABASE_URL" -v schema=public -v function=match_docs -v arguments='query vector' -v result=integer -v options=STABLE -v body='$$ BEGIN RETURN vector_dims(query); END $$' -f sql/cutover_function_body.sql
-- The function that people call, its arguments, result, owner, grants and settings as they were. The body has a branch for each model of the registry, by the query's dimensions.
CREATE OR REPLACE FUNCTION :"schema".:"function"(:arguments) RETURNS :result LANGUAGE plpgsql :options AS :body;
