"""Kernels and their principal components."""
