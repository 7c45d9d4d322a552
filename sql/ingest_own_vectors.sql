-- Run by vecferry: the same where the column of the vectors is one of the chunks' own.
UPDATE :"schema".:"table" AS c SET :"column" = t.vector
FROM unnest(CAST(:keys AS text[]), CAST(:vectors AS :type[])) AS t (key, vector)
WHERE c.:"key" = CAST(t.key AS :key_type);
