-- psql "$DATABASE_URL" -v view=docs__2_rows -v columns='b.id, b.document' -v column=embedding_1536 -v side=docs__2 -v schema=public -v table=docs -v same='s.k1 = b.id' -f sql/expand_view.sql
-- The rows of a live table with the vectors that lie beside it: key, text and what the search function returns; no more, lest it stand in the way of changes to the table.
CREATE OR REPLACE VIEW vecferry.:"view" WITH (security_invoker = true) AS
    SELECT :columns, s.embedding AS :"column" FROM vecferry.:"side" AS s JOIN :"schema".:"table" AS b ON :same;
