"""Plans between models of one set of tables."""
