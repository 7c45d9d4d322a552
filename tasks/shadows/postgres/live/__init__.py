"""Live tables: vectors in a column of the table, or in a table beside it, that follow what people write."""
