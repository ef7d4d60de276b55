"""Scores against hand-made labels."""
