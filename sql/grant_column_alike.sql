-- psql "$DATABASE_URL" -v privilege=SELECT -v schema=public -v table=docs -v column=embedding_1536 -v role=reader -v option='WITH GRANT OPTION' -f sql/grant_column_alike.sql
-- What a role may do with the column of the old vectors it may do with that of the new ones.
GRANT :privilege (:"column") ON :"schema".:"table" TO :role :option;
