"""Phase objects in bright field, rendered."""

import numpy as np
from scipy import ndimage

from napari_defocus.simulate.optics import Camera, defocus_varying, expose


def render_phase(planes=9, side=192):
    """Render phase objects in bright field, and their depth (Y, X) in planes.

    Contrast grows with the distance from focus: by the transport of intensity, the change of
    brightness is that distance times the Laplacian of the phase (M. Teague, J. Opt. Soc. Am.
    73(11), 1983).
    """
    rng = np.random.default_rng(0)
    phase = np.zeros((side, side), np.float32)
    phase[tuple(rng.integers(8, side - 8, (2, side * side // 300)))] = 1
    bend = ndimage.laplace(ndimage.gaussian_filter(phase, 2.5))
    bend = bend / np.abs(bend).max()
    across = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    depth = np.asarray(np.broadcast_to((planes - 1) / 2 + 3 * across, (side, side)))
    stack = []
    for z in range(planes):
        light = np.asarray(0.5 * (1 + 0.12 * (z - depth) * bend), np.float32)
        seen = defocus_varying(light, 0.35 * np.abs(depth - z))
        stack.append(expose(seen, Camera(), rng))
    return np.stack(stack), depth
