"""Rendered focus stacks whose depth is known.

    python -m benchmarks.stacks.rendered

Printed are the error of their depth, in planes, and the PSNR of the fused image against the scene
without noise and defocus, beside those of the best single plane and of the plain fusion by the
largest coefficients of Laplacian pyramids.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from skimage.transform import resize

from benchmarks import tables
from napari_defocus.simulate.optics import (
    Camera,
    defocus,
    defocus_varying,
    expose,
    random_outline,
    to_light,
)
from napari_defocus.stacks.api import analyse_stack

Float = npt.NDArray[np.float32]
Depth = Callable[[tuple[int, int], int], Float]

SIDE = 256
SOFTNESS = 0.3
ELECTRONS = 8000.0
LEVELS = 5


@dataclass(frozen=True, eq=False)
class Rendered:
    """A stack (Z, Y, X[, 3]), its depth (Y, X) in planes, and the scene in focus all over."""

    planes: npt.NDArray[np.uint8]
    depth: Float
    sharp: npt.NDArray[np.uint8]


def picture(name: str, side: int) -> Float:
    """Return linear light of a picture that comes with scikit-image, reduced until it is crisp."""
    found = getattr(data, name)()
    size = (side, side, *found.shape[2:])
    small = resize(found.astype(np.float32), size, anti_aliasing=True)
    return to_light(np.clip(np.round(small), 0, 255).astype(np.uint8))


def slant(shape: tuple[int, int], planes: int) -> Float:
    """Return the depth of a plane that lies askew, from the first plane to the last."""
    y, x = (np.linspace(0, 1, size, dtype=np.float32) for size in shape)
    return np.asarray((0.3 * y[:, np.newaxis] + 0.7 * x) * (planes - 1), np.float32)


def hills(shape: tuple[int, int], planes: int, seed: int, width: float = 1 / 8) -> Float:
    """Return the depth of smooth hills, from the first plane to the last."""
    noise = np.random.default_rng(seed).normal(size=shape)
    relief = ndimage.gaussian_filter(noise, width * shape[0], mode="reflect")
    relief = (relief - relief.min()) / np.ptp(relief)
    return np.asarray(relief * (planes - 1), np.float32)


def render_surface(
    light: Float, depth: Float, planes: int, growth: float, electrons: float = ELECTRONS
) -> Rendered:
    """Render a surface (Y, X) plane by plane; the disc grows by `growth` pixels a plane."""
    seen = [defocus_varying(light, growth * np.abs(depth - z)) for z in range(planes)]
    return _recorded(seen, depth, light, electrons)


def _surface(
    name: str, depth: Depth, planes: int, growth: float, electrons: float, side: int
) -> Rendered:
    surface = depth((side, side), planes)
    return render_surface(picture(name, side), surface, planes, growth, electrons)


def _terraces(
    names: Sequence[str], levels: Sequence[float], growth: float, seed: int, side: int
) -> Rendered:
    """Render layers of random outline, each nearer and in front of those before."""
    lights = [picture(name, side) for name in names]
    rng = np.random.default_rng(seed)
    shape = (side, side)
    covers = [np.ones(shape, np.float32)] + [random_outline(shape, rng) for _ in lights[1:]]
    depth = np.zeros(shape, np.float32)
    for cover, level in zip(covers, levels, strict=True):
        depth = np.where(cover > 0.5, np.float32(level), depth)

    def view(radii: Sequence[float]) -> Float:
        seen = np.zeros_like(lights[0])
        for light, cover, radius in zip(lights, covers, radii, strict=True):
            shown = cover if light.ndim == 2 else cover[..., np.newaxis]
            hidden = defocus(cover, radius).reshape(shown.shape)
            seen = defocus(light * shown, radius) + (1 - hidden) * seen
        return seen

    stack = [view([growth * abs(level - z) for level in levels]) for z in range(8)]
    return _recorded(stack, depth, view([0.0] * len(levels)), ELECTRONS)


def _recorded(stack: Sequence[Float], depth: Float, sharp: Float, electrons: float) -> Rendered:
    rng = np.random.default_rng(0)
    camera = Camera(softness=SOFTNESS, electrons=electrons)
    ideal = Camera(softness=SOFTNESS, electrons=1e12, read_noise=0)
    planes = np.stack([expose(light, camera, rng) for light in stack])
    return Rendered(planes, depth, expose(sharp, ideal, rng))


# By name, functions of the side in pixels.
RENDERED: dict[str, Callable[[int], Rendered]] = {
    name: partial(render, *settings)
    for name, render, *settings in (
        ("hills gravel", _surface, "gravel", partial(hills, seed=0), 12, 1.0, ELECTRONS),
        ("hills gravel, noisy", _surface, "gravel", partial(hills, seed=2), 12, 1.0, 500),
        ("hills astronaut", _surface, "astronaut", partial(hills, seed=3), 8, 1.5, ELECTRONS),
        ("hills coins", _surface, "coins", partial(hills, seed=4, width=0.3), 8, 1.2, 2000),
        ("slant tissue", _surface, "immunohistochemistry", slant, 8, 1.0, ELECTRONS),
        ("slant brick", _surface, "brick", slant, 6, 1.5, ELECTRONS),
        ("slant camera", _surface, "camera", slant, 8, 1.5, 3000),
        ("slant page", _surface, "page", slant, 7, 1.5, ELECTRONS),
        ("steps brick", _terraces, ("brick", "gravel", "grass"), (1.0, 3.5, 6.0), 1.0, 0),
        ("steps grass", _terraces, ("grass", "brick", "gravel"), (1.0, 4.0, 6.0), 1.5, 5),
        ("steps astronaut", _terraces, ("astronaut", "coffee"), (1.0, 5.0), 1.0, 7),
    )
}

psnr = partial(peak_signal_noise_ratio, data_range=255)


def pyramid_fusion(planes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Fuse by the largest coefficients of Laplacian pyramids, and the mean of what remains.

    P. Burt, R. Kolczynski, "Enhanced image capture through fusion", ICCV 1993, in its plain form;
    written with scipy alone, as an independent reference.
    """
    stack = planes.astype(np.float64)
    bands = []
    for _ in range(LEVELS):
        coarse = _smooth(stack)[:, ::2, ::2]
        bands.append(stack - _expanded(coarse, stack.shape))
        stack = coarse
    image = stack.mean(axis=0, keepdims=True)
    for band in reversed(bands):
        largest = np.abs(band).argmax(axis=0, keepdims=True)
        image = _expanded(image, (1, *band.shape[1:])) + np.take_along_axis(band, largest, axis=0)
    return np.clip(np.round(image[0]), 0, 255).astype(np.uint8)


def _smooth(stack: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(ndimage.gaussian_filter(stack, 1.0, axes=(1, 2)))


def _expanded(coarse: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    spread, weight = np.zeros(shape), np.zeros(shape)
    spread[:, ::2, ::2], weight[:, ::2, ::2] = coarse, 1
    return _smooth(spread) / _smooth(weight)


def measure(stack: Rendered) -> dict[str, float]:
    """Score depth map and fused image of a rendered stack."""
    found = analyse_stack(stack.planes)
    error = np.abs(found.depth_map - stack.depth)
    return {
        "error": float(np.median(error)),
        "far out": float((error > 0.75).mean()),
        "plane": max(psnr(stack.sharp, plane) for plane in stack.planes),
        "pyramid": psnr(stack.sharp, pyramid_fusion(stack.planes)),
        "fused": psnr(stack.sharp, found.fused),
    }


def main() -> None:
    found = ((name, measure(render(SIDE))) for name, render in RENDERED.items())
    rows = ((name, *(f"{score:.3f}" for score in scores.values())) for name, scores in found)
    tables.show(["stack", "error", "far out", "plane", "pyramid", "fused"], rows)


if __name__ == "__main__":
    main()
