-- psql "$DATABASE_URL" -v id=1 -v module="'os'" -v name="'walk'" -v public=true -v content="'Directory tree generator.'" -v embedding="array_fill(0.1::real, ARRAY[384])::vector" -f sql/demo_update.sql
-- What its application writes: another docstring in the place of one.
UPDATE docstrings SET module = :module, name = :name, public = :public, content = :content, embedding = :embedding
WHERE id = :id;
