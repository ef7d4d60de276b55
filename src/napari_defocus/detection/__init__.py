"""Defocus detection: inference, refinement, threshold and mask."""
