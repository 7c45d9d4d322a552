-- Run by vecferry: the vectors of a document's chunks, before the chunks: nothing else may take them along.
DELETE FROM :"schema".:"table" AS e USING :"schema_of_chunks".:"chunks" AS c
WHERE e.:"chunk" = c.:"key" AND c.:"document" = :value;
