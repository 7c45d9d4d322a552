-- psql "$DATABASE_URL" -v id=1 -v image_path=cat.png -v x=0 -v y=0 -v width=1 -v height=1 -v subject=cat -v embedding="array_fill(0.1::real, ARRAY[1280])::vector" -f sql/demo_report.sql
-- A report of that table.
INSERT INTO reports (id, image_path, x, y, width, height, subject, embedding)
VALUES (:id, :'image_path', :x, :y, :width, :height, :'subject', :embedding);
