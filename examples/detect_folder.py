"""Tell of each image of a folder how much is blurred.

python detect_folder.py FOLDER TABLE.csv
"""

import csv
import sys
from pathlib import Path

import numpy as np

from napari_defocus import DefocusError, DetectionConfig, detect, load_metric
from napari_defocus.io import find_images, read_image
from napari_defocus.measure import region_shares

folder, table = map(Path, sys.argv[1:])
metric = load_metric()
# adapt=0: no adaptation to the single image, so that images compare.
config = DetectionConfig(adapt=0)

with table.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["image", "blurred", "sharp", "undecided"])
    for path in find_images([folder]):
        try:
            image = read_image(path)
            found = detect(image.data, metric, config, axes=image.axes)
        except DefocusError as error:
            print(f"{path}: {error}", file=sys.stderr)
            continue
        shares = region_shares(found.mask, np.ones(found.mask.shape[-2:], bool))
        writer.writerow([path.name, *(f"{shares[name]:.4f}" for name in shares)])
