-- Run by vecferry: one row a chunk gives way to one row a chunk and model, in the same transaction as expand_model_key.sql.
ALTER TABLE :"schema".:"table" DROP CONSTRAINT :"constraint";
