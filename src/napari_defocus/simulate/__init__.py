"""Rendered defocus: scenes whose blur is known at every pixel."""
