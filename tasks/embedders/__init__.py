"""Models that turn text or images into vectors: one adapter a provider, all behind interface.py."""
