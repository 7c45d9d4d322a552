"""Tables that serve several models: what is made beside them, and the place that is a column of theirs."""
