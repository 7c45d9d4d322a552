"""What of a record a model is given: one adapter a kind of content, all behind interface.py."""
