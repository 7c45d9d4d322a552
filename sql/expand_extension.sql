-- psql "$DATABASE_URL" -f sql/expand_extension.sql
CREATE EXTENSION IF NOT EXISTS vector;
