"""Painting, and the patches it gives."""
