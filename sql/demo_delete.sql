-- psql "$DATABASE_URL" -v id=1 -f sql/demo_delete.sql
-- What its application writes: a docstring that goes.
DELETE FROM docstrings WHERE id = :id;
