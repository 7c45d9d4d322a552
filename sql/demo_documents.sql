-- psql "$DATABASE_URL" -v schema=public -f sql/demo_documents.sql
-- What `vecferry demo multi-model` begins with: documents, their chunks, and one column of vectors, as an application has them.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA IF NOT EXISTS :"schema";
CREATE TABLE :"schema".documents (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL
);
CREATE TABLE :"schema".document_chunks (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id bigint NOT NULL REFERENCES :"schema".documents ON DELETE CASCADE,
    chunk_index integer NOT NULL,
    content     text NOT NULL
);
CREATE TABLE :"schema".chunk_embeddings (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chunk_id  bigint NOT NULL REFERENCES :"schema".document_chunks ON DELETE CASCADE,
    embedding vector(384)
);
CREATE INDEX chunk_embeddings_by_minilm ON :"schema".chunk_embeddings USING hnsw (embedding vector_cosine_ops);
