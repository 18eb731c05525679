"""Pages that a browser shows with nothing beside them."""
