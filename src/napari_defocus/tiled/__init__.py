"""Detection of images larger than memory: tiles, Dask, and going on where it stopped."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
