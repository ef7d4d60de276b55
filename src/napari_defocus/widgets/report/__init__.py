"""The Report widget."""
