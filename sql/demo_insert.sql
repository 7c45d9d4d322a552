-- psql "$DATABASE_URL" -v id=1 -v module="'os'" -v name="'walk'" -v public=true -v content="'Directory tree generator.'" -v embedding="array_fill(0.1::real, ARRAY[384])::vector" -f sql/demo_insert.sql
-- What its application writes: a new docstring.
INSERT INTO docstrings (id, module, name, public, content, embedding)
VALUES (:id, :module, :name, :public, :content, :embedding);
