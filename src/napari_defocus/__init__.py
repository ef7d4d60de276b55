"""Which part of an image is in focus: blur maps and masks from a learnt local metric."""

import lazy_loader

__version__ = "0.2.0"

# The public names stand in __init__.pyi; a name's module is imported when the name is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
