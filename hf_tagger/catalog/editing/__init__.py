"""Changes single values of a shop's own file: all other bytes stay as they are."""
