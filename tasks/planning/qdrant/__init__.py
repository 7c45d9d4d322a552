"""Plans of collections in Qdrant."""
