-- psql "$DATABASE_URL" -v table=public.docs -f sql/cutover_dependents.sql
-- Everything that follows the table, not its name, when another table takes the name.
SELECT 'view' AS kind, v.oid::regclass::text AS name
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
JOIN pg_class v ON v.oid = r.ev_class
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(:'table') AND v.oid <> d.refobjid
UNION SELECT 'foreign key', conname || ' of ' || conrelid::regclass::text
FROM pg_constraint WHERE contype = 'f' AND (confrelid = to_regclass(:'table') OR conrelid = to_regclass(:'table'))
UNION SELECT 'policy', polname FROM pg_policy WHERE polrelid = to_regclass(:'table')
UNION SELECT 'row level security', relname FROM pg_class WHERE oid = to_regclass(:'table') AND relrowsecurity
UNION SELECT 'trigger', tgname FROM pg_trigger WHERE tgrelid = to_regclass(:'table') AND NOT tgisinternal
UNION SELECT 'publication', p.pubname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = to_regclass(:'table')
UNION SELECT 'function', d.objid::regprocedure::text FROM pg_depend d
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(:'table')
ORDER BY 1, 2;
