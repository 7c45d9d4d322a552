-- Run by vecferry: the chunks of a document, in their order.
INSERT INTO :"schema".:"table" (:columns)
SELECT :values FROM unnest(CAST(:keys AS text[]), CAST(:texts AS text[])) WITH ORDINALITY AS t (key, content, place)
ORDER BY t.place
RETURNING :"key", :"text";
