"""Detection of images larger than memory: tiles, Dask, and going on where it stopped."""
