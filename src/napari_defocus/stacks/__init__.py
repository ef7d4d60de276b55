"""Focus stacks and time series: best plane, depth map, fused image."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
