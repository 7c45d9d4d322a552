-- Run by vecferry: a document's chunks, before those of its new text.
DELETE FROM :"schema".:"table" AS c WHERE c.:"document" = :value;
