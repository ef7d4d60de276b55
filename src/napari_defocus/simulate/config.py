"""The settings of rendered scenes; quick to import, for the command line."""

from dataclasses import dataclass

from napari_defocus.core.settings import Settings


@dataclass(frozen=True)
class SceneConfig(Settings):
    """What scenes are like.

    Parameters
    ----------
    size : int
        Side in pixels.
    objects : int
        At most so many objects.
    aperture : tuple of float
        Range of the largest difference of disc radii of the lens, in pixels, uniform
        in its logarithm.
    wholly_sharp, wholly_blurred : float
        Shares of scenes without any blur, and without anything in focus.
    fields : float
        Share of scenes that are fields of a fluorescence microscope.
    """

    size: int = 384
    objects: int = 4
    aperture: tuple[float, float] = (4.0, 32.0)
    wholly_sharp: float = 0.1
    wholly_blurred: float = 0.08
    fields: float = 0.12
