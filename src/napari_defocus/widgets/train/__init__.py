"""Training a metric on the patches."""
