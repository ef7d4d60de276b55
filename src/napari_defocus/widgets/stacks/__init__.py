"""Focus stacks and time series."""
