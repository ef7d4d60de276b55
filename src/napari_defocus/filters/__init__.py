"""Planes, their noise, and the filters that work on them."""
