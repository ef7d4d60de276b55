"""Make the sample data anew: ``python -m napari_defocus.simulate.sample_rendering FOLDER``.

Public-domain pictures that come with scikit-image, and drawn nuclei, are seen through the thin lens
of `optics`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_defocus.io.atomic import whole_file
from napari_defocus.io.raster import write_png
from napari_defocus.io.tiff_writer import write_tiff
from napari_defocus.simulate.optics import (
    Camera,
    composite,
    defocus,
    defocus_varying,
    expose,
    to_light,
)

SEED = 0
PIXEL_SIZE_UM = 0.65
Z_STEP_UM = 2.0
PLANES = 12
# Growth of the disc radius with the distance from the plane in focus.
RADIUS_PER_UM = 0.5
# Rise of the tilted plane, micrometres a micrometre.
TILT_X, TILT_Y = 0.12, 0.05
PHOTO_RADIUS = 5.0
# The series of nuclei, which lie flat, but for a standard deviation, in focus in the middle plane.
SERIES_PLANES = 7
SERIES_STEP_UM = 5.0
SERIES_SIDE = 256
FLAT_UM = SERIES_STEP_UM * (SERIES_PLANES // 2)
FLAT_TO_UM = 1.0
NUCLEUS = (13.0, 20.0)
# Blur of the objective in focus, in pixels; electrons of white; grey value without light.
OBJECTIVE_SIGMA = 0.8
SERIES_ELECTRONS = 3000.0
PEDESTAL = 100.0
JPEG_QUALITY = 90
WALL_COLOUR = np.array([1.0, 0.75, 0.55], np.float32)
# Outline of the astronaut and her helmet, (x, y) in pixels of the picture.
OUTLINE = (
    (26, 512), (20, 462), (25, 420), (24, 385), (36, 330), (46, 290), (54, 262), (82, 236),
    (119, 208), (114, 188), (123, 168), (142, 154), (168, 149), (182, 149), (181, 128), (172, 122),
    (163, 110), (158, 95), (156, 70), (162, 50), (178, 40), (188, 32), (206, 20), (236, 16),
    (266, 24), (286, 40), (297, 62), (298, 90), (292, 110), (278, 126), (264, 136), (258, 152),
    (256, 174), (272, 182), (290, 198), (302, 222), (302, 236), (330, 252), (348, 280), (354, 300),
    (359, 340), (366, 348), (396, 346), (430, 354), (460, 372), (482, 400), (494, 440), (497, 454),
    (506, 462), (510, 512),
)  # fmt: skip


def render_samples(folder: Path) -> None:
    """Render every sample into `folder`.

    Raises
    ------
    DefocusError
        Where a file cannot be written.
    """
    rng = np.random.default_rng(SEED)
    _photo(folder, rng)
    _tilted_plane(folder, rng)
    _z_stack(folder, rng)
    _nuclei_series(folder, np.random.default_rng(SEED))


def _photo(folder: Path, rng: np.random.Generator) -> None:
    """Render a person in focus before a wall that is not."""
    from skimage import data

    person = data.astronaut()
    alpha = Image.new("L", person.shape[1::-1])
    ImageDraw.Draw(alpha).polygon(OUTLINE, fill=255)
    cover = (np.asarray(alpha) > 0).astype(np.float32)
    wall = np.asarray(to_light(data.brick())[..., np.newaxis] * WALL_COLOUR, np.float32)
    light = composite(wall, to_light(person), cover, PHOTO_RADIUS, 0.0)
    image = expose(light, Camera(softness=0.3, electrons=10_000.0), rng)
    with whole_file(folder / "photo.jpg") as temporary:
        Image.fromarray(image).save(temporary, "JPEG", quality=JPEG_QUALITY)
    write_png(folder / "photo.mask.png", np.where(cover > 0.5, 0, 255).astype(np.uint8))


def _tilted_plane(folder: Path, rng: np.random.Generator) -> None:
    """Render a stained section that lies askew under the microscope."""
    from skimage import data

    tissue = _reduced(data.immunohistochemistry(), 384)
    y, x = np.indices(tissue.shape[:2], np.float32) * PIXEL_SIZE_UM
    height = TILT_X * (x - x.mean()) + TILT_Y * (y - y.mean())
    radius = RADIUS_PER_UM * np.abs(height)
    image = expose(defocus_varying(to_light(tissue), radius), Camera(softness=0.3), rng)
    write_tiff(folder / "tilted_plane.tif", image, axes="YXS", pixel_size_um=PIXEL_SIZE_UM)
    write_tiff(folder / "tilted_plane.height.tif", height, axes="YX", pixel_size_um=PIXEL_SIZE_UM)


def _z_stack(folder: Path, rng: np.random.Generator) -> None:
    """Render a rough surface with hills, plane by plane from the bottom up."""
    from skimage import data

    light = to_light(_reduced(data.gravel(), 256))
    relief = ndimage.gaussian_filter(rng.normal(size=light.shape), 32, mode="reflect")
    relief = (relief - relief.min()) / (relief.max() - relief.min())
    height = (relief * Z_STEP_UM * (PLANES - 1)).astype(np.float32)
    camera = Camera(softness=0.3)
    planes = [
        expose(defocus_varying(light, RADIUS_PER_UM * np.abs(height - z)), camera, rng)
        for z in Z_STEP_UM * np.arange(PLANES)
    ]
    write_tiff(folder / "z_stack.tif", np.stack(planes), axes="ZYX", pixel_size_um=PIXEL_SIZE_UM)
    write_tiff(folder / "z_stack.height.tif", height, axes="YX", pixel_size_um=PIXEL_SIZE_UM)


def _nuclei_series(folder: Path, rng: np.random.Generator) -> None:
    """Render a flat layer of fluorescent nuclei, plane by plane through the focus."""
    layers: dict[float, npt.NDArray[np.float32]] = {}
    nearest = np.full((SERIES_SIDE, SERIES_SIDE), np.inf, np.float32)
    height = np.zeros_like(nearest)
    for y, x in _apart(rng):
        lies = round(rng.normal(FLAT_UM, FLAT_TO_UM), 1)
        light, distance = _nucleus(y, x, rng)
        layers[lies] = layers.get(lies, np.zeros_like(light)) + light
        height[distance < nearest] = lies
        nearest = np.minimum(nearest, distance)
    planes = []
    # Draws of one plane are not to shift those of the next where a processor rounds otherwise.
    for z, noise in enumerate(rng.spawn(SERIES_PLANES)):
        seen = sum(
            defocus(light, RADIUS_PER_UM * abs(lies - z * SERIES_STEP_UM))
            for lies, light in layers.items()
        )
        seen = np.clip(ndimage.gaussian_filter(seen, OBJECTIVE_SIGMA), 0, None)
        planes.append(
            noise.poisson(SERIES_ELECTRONS * seen) + noise.normal(PEDESTAL, 3.0, seen.shape)
        )
    image = np.clip(np.rint(planes), 0, 2**16 - 1).astype(np.uint16)
    write_tiff(folder / "nuclei_series.tif", image, axes="ZYX", pixel_size_um=PIXEL_SIZE_UM)
    truth = folder / "nuclei_series.height.tif"
    write_tiff(truth, height, axes="YX", pixel_size_um=PIXEL_SIZE_UM)


def _apart(rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yield places (y, x) that lie two radii of a nucleus apart."""
    found: list[tuple[float, float]] = []
    for y, x in rng.uniform(0, SERIES_SIDE, (2000, 2)):
        if all(np.hypot(y - v, x - u) > 2.4 * NUCLEUS[1] for v, u in found):
            found.append((y, x))
            yield y, x


def _nucleus(
    y: float, x: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Draw a mottled ellipse; return its light and the distance of each pixel from its middle."""
    rows, columns = np.indices((SERIES_SIDE, SERIES_SIDE), np.float32)
    a, b = rng.uniform(*NUCLEUS, 2)
    turn = rng.uniform(0, np.pi)
    u = np.cos(turn) * (columns - x) + np.sin(turn) * (rows - y)
    v = np.cos(turn) * (rows - y) - np.sin(turn) * (columns - x)
    inside = np.clip((1 - np.hypot(u / a, v / b)) * min(a, b) + 0.5, 0, 1)
    mottle = ndimage.gaussian_filter(rng.normal(size=rows.shape), 1.5)
    light = inside * np.clip(0.6 + 0.25 * mottle / mottle.std(), 0, None) * rng.uniform(0.4, 0.9)
    return np.asarray(light, np.float32), np.hypot(u, v)


def _reduced(picture: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Reduce a picture to `side` pixels, which makes it crisp."""
    from skimage.transform import resize

    small = resize(picture.astype(np.float32), (side, side), anti_aliasing=True)
    return np.asarray(np.clip(np.round(small), 0, 255), np.uint8)


if __name__ == "__main__":
    render_samples(Path(sys.argv[1]))
