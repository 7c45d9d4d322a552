"""The migrations: each flow reads like its table of contents."""
