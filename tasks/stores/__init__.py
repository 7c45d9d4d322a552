"""Where records live: one adapter a store, all behind interface.py."""
