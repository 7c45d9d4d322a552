"""The stages of a migration, what they share, and the stores and embedders they stand on."""
