"""Hand a mask over to QuPath, as GeoJSON, and to Fiji, as OME-TIFF; read both back and compare.

python handover.py IMAGE FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageDraw

from napari_defocus import detect
from napari_defocus.io import read_image, write_geojson
from napari_defocus.measure import mask_features

path, folder = map(Path, sys.argv[1:])
folder.mkdir(parents=True, exist_ok=True)
image = read_image(path)
found = detect(image.data, axes=image.axes)

# QuPath: drag the file onto the image.
outlines = folder / f"{path.stem}.geojson"
write_geojson(outlines, mask_features(found.mask, blur=found.blur))

# Fiji: File > Open, or Bio-Formats. Channel 1 is the mask, channel 2 the blur map in per cent.
channels = np.stack([found.mask, np.rint(100 * found.blur).astype(np.uint8)])
scale = {}
if image.pixel_size_um:
    scale = {"PhysicalSizeX": image.pixel_size_um, "PhysicalSizeY": image.pixel_size_um}
stack = folder / f"{path.stem}.ome.tif"
tifffile.imwrite(
    stack,
    channels,
    photometric="minisblack",
    metadata={"axes": "CYX", "Channel": {"Name": ["mask", "blur in per cent"]}, **scale},
)

# Back again: paint the outlines, holes as background, at twice the size so that no pixel's centre
# lies on an edge.
classes = {"blurred": 1, "sharp": 2}
rows, columns = found.mask.shape
painted = np.zeros((rows, columns), np.uint8)
for feature in json.loads(outlines.read_text("utf-8"))["features"]:
    inside = np.zeros((rows, columns), bool)
    for ring in feature["geometry"]["coordinates"]:
        canvas = Image.new("1", (2 * columns + 1, 2 * rows + 1))
        ImageDraw.Draw(canvas).polygon([(2 * x, 2 * y) for x, y in ring], fill=1)
        inside ^= np.asarray(canvas)[1::2, 1::2]
    painted[inside] = classes[feature["properties"]["classification"]["name"]]
assert np.array_equal(painted, found.mask), "the outlines are not those of the mask"
assert np.array_equal(tifffile.imread(stack)[0], found.mask), "the channel is not the mask"
print(outlines, stack, "read back: the same mask", sep="\n")
