-- Run by vecferry: one document of those that several models serve.
INSERT INTO :"schema".:"table" (:columns) VALUES (:values) RETURNING :"key";
