"""Pictures for people: overviews and curves."""
