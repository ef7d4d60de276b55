"""The one-click widget."""
