-- Run by vecferry: the index that expand_model_key_concurrently.sql built becomes the constraint that ON CONFLICT names.
ALTER TABLE :"schema".:"table" ADD CONSTRAINT :"index" :kind USING INDEX :"index";
