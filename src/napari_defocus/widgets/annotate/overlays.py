"""Overlays on the image that is annotated: its super-pixels, and the patches that are taken."""

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from napari.viewer import Viewer
from qtpy.QtCore import QObject, Signal

from napari_defocus.filters.plane import prepare_plane
from napari_defocus.labels.classes import COLOURS
from napari_defocus.labels.superpixels import superpixel_outlines, superpixels
from napari_defocus.metric.patches import PatchConfig, PatchSet, build_patch_set
from napari_defocus.widgets._shared import layers
from napari_defocus.widgets._shared.jobs import plain
from napari_defocus.widgets._shared.latest import Latest
from napari_defocus.widgets._shared.targets import Plane, Target

PATCHES = "patches"
SUPERPIXELS = "super-pixels"
# Drawing more patches than this would hold up the window, and no one could tell them apart.
MOST_SHOWN = 3000


class Overlays(QObject):
    """Plugin-owned layers that follow the annotation; worked out in the background."""

    # The patches that would be taken, or why there are none.
    counted = Signal(object)
    failed = Signal(object)

    def __init__(self, viewer: Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._source: Image | None = None
        self._last: tuple[Any, ...] | None = None
        self._patches_visible = True
        self._superpixels_wanted = False
        self._patches = Latest(self)
        self._outlines = Latest(self)
        self._patches.ready.connect(self._show_patches)
        self._outlines.ready.connect(self._show_superpixels)
        for worked_out in (self._patches, self._outlines):
            worked_out.failed.connect(self.failed)

    def show_on(self, source: Image | None) -> None:
        """Choose the image; overlays of others are removed."""
        self._source, self._last = source, None
        layers.remove_later(self._viewer, self._foreign)

    def _foreign(self) -> list[Layer]:
        """List the overlays of other images."""
        own = None if self._source is None else self._source.unique_id
        notes = [(layer, layers.owned(layer)) for layer in self._viewer.layers]
        return [
            layer
            for layer, note in notes
            if note.get("role") in (PATCHES, SUPERPIXELS) and note.get("source_id") != own
        ]

    # Patches

    def request_patches(self, target: Target, config: PatchConfig) -> None:
        """Cut the patches of a plane, and show them."""
        # Many events, such as a move through the planes of a stack, change nothing.
        request = (target.source.unique_id, target.index, config, target.labels)
        if self._last is not None and _same(request, self._last):
            return
        self._last = request
        arguments = (target.read, target.labels, target.name, config)
        self._patches.request(target.source.unique_id, plain(cut), *arguments)

    def drop_patches(self) -> None:
        """Remove the patches: the last request has none."""
        # The next request must not be skipped.
        self._last = None
        self._patches.stop()
        self._drop(PATCHES)

    def set_patches_visible(self, on: bool) -> None:
        """Show or hide the patches."""
        self._patches_visible = on
        layer = self._find(PATCHES)
        if layer is not None:
            layer.visible = on

    def _show_patches(self, source_id: Any, patch_set: PatchSet) -> None:
        if self._source is None or self._source.unique_id != source_id:
            return
        self.counted.emit(patch_set)
        layer = self._find(PATCHES)
        if layer is None:
            # Not shapes, slow by the thousand, nor points, square in the world, not in pixels.
            add, nothing = self._viewer.add_vectors, np.zeros((0, 2, 2))
            layer = self._add(PATCHES, add, nothing, vector_style="line", opacity=0.6)
        layer.data, colours = _patch_outlines(patch_set.sample(MOST_SHOWN))
        if len(colours):
            layer.edge_color = colours
        layer.visible = self._patches_visible

    # Super-pixels

    def request_superpixels(self, index: layers.Index, size: int) -> None:
        """Outline the super-pixels of a plane."""
        self._superpixels_wanted = True
        if self._source is None:
            return
        layer = self._find(SUPERPIXELS)
        key = (self._source.unique_id, index, size)
        if layer is None or layers.owned(layer).get("key") != key:
            data = layers.full_resolution(self._source)
            self._outlines.request(key, plain(_outline_superpixels), data, index, size)

    def drop_superpixels(self) -> None:
        """Remove the super-pixels."""
        self._superpixels_wanted = False
        self._outlines.stop()
        self._drop(SUPERPIXELS)

    def _show_superpixels(self, key: tuple[Any, ...], outlines: Plane) -> None:
        source = self._source
        if not self._superpixels_wanted or source is None or source.unique_id != key[0]:
            return
        layer = self._find(SUPERPIXELS)
        if layer is None:
            look = {"colormap": layers.label_colours({1: (1, 1, 1, 1)}), "opacity": 0.4}
            layer = self._add(SUPERPIXELS, self._viewer.add_labels, outlines, **look)
        else:
            layer.data = outlines
        layer.metadata[layers.KEY]["key"] = key

    def _add(self, role: str, add: Callable[..., Any], data: Plane, **look: Any) -> Layer:
        active = self._viewer.layers.selection.active
        where = layers.plane_geometry(self._source)
        layer = add(data, **layers.described(self._source, role, {}), **where, **look)
        # The brush stays where it was.
        self._viewer.layers.selection.active = active
        return layer

    def _find(self, role: str) -> Layer | None:
        return None if self._source is None else layers.find_owned(self._viewer, self._source, role)

    def _drop(self, role: str) -> None:
        layer = self._find(role)
        if layer is not None and role == PATCHES:  # perhaps as its annotation is removed
            layers.remove_later(self._viewer, lambda: [layer])
        elif layer is not None:
            self._viewer.layers.remove(layer)


# In the background


def cut(read: Callable[[], Plane], labels: Plane, name: str, config: PatchConfig) -> PatchSet:
    """Cut the patches of one annotated plane."""
    return build_patch_set([(name, read(), labels)], config)


def _outline_superpixels(data: Any, index: layers.Index, size: int) -> Plane:
    segments = superpixels(prepare_plane(np.asarray(data[index])).grey, size)
    return superpixel_outlines(segments).astype(np.uint8)


def _same(request: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    return request[:-1] == before[:-1] and np.array_equal(request[-1], before[-1])


def _patch_outlines(patch_set: PatchSet) -> tuple[Plane, Plane]:
    """Return the sides of all patches as (start, direction), (4 N, 2, 2), and their colours."""
    size = patch_set.config.size
    first = patch_set.corner - 0.5
    down, right = np.array([size, 0]), np.array([0, size])
    sides = [(first, down), (first, right), (first + right, down), (first + down, right)]
    vectors = [np.stack([start, np.broadcast_to(way, start.shape)], 1) for start, way in sides]
    colours = [(*COLOURS[label], 1.0) for label in patch_set.labels]
    return np.concatenate(vectors), np.array(colours * len(sides))
