"""What counts as sharp: the sharpness limit, and a classifier learnt from a user's own images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
