"""Plans of live tables: texts and images."""
