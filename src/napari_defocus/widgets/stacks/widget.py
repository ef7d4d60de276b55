"""Focus stacks: altitude, all in focus, the curve of the planes; and labels without painting."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtWidgets import QGroupBox

from napari_defocus.core.errors import DefocusError
from napari_defocus.metric.fitting import METHODS, FitConfig
from napari_defocus.metric.nets import TrainingConfig
from napari_defocus.stacks.timelapse import FrameScores
from napari_defocus.widgets._shared import layers, ui
from napari_defocus.widgets._shared.fit_jobs import offer_trained
from napari_defocus.widgets._shared.jobs import JobBar
from napari_defocus.widgets._shared.plugin_widget import PluginWidget
from napari_defocus.widgets._shared.preferences import preferred
from napari_defocus.widgets._shared.series import ASKED, Index, Series
from napari_defocus.widgets._shared.targets import ANNOTATION, add_painted
from napari_defocus.widgets.stacks import jobs as stack_jobs
from napari_defocus.widgets.stacks.jobs import Analysis
from napari_defocus.widgets.stacks.layers import (
    FUSED,
    hide_maps,
    labels_at,
    put_map,
    show_plane,
)
from napari_defocus.widgets.stacks.results import StackResults
from napari_defocus.widgets.stacks.settings import StackSettings

ANNOTATE_TIP = "Adds labels of all planes, found by comparing them."
FIT_TIP = "Learns a metric from the planes, compared; choose it in Detect."


class StacksWidget(PluginWidget):
    """A stack in, maps of what is in focus where out."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        # What the results are of: the image, how it was looked at, the stack (None: many).
        self._source: Image | None = None
        self._series: Series | None = None
        self._work: Analysis | None = None
        self._maps: list[Image] = []
        self._drawn = 0
        self._shown: Any = None
        self._timer = ui.debounced(self, 0, self._show_current)
        self.settings = StackSettings(viewer)
        self.jobs = JobBar(
            self._session.jobs, "Analyse", "Finds what is in focus in which plane, or frame."
        )
        self.results = StackResults(viewer, self.jobs)
        self.annotate_button = ui.button("Annotate planes", ANNOTATE_TIP, self.annotate)
        self.fit_button = ui.button("Fit a metric", FIT_TIP, self.fit)
        self.method = ui.choice(
            METHODS, METHODS[0],
            "How Fit a metric learns. nets: trains small nets, minutes on large stacks. instant: "
            "in closed form, in seconds.",
        )  # fmt: skip
        self._group = QGroupBox("Labels from this stack, without painting")
        self._group.setLayout(ui.row(self.annotate_button, self.fit_button, self.method))
        layout = ui.column(self, self.settings, self.jobs, self.results, self._group, margin=True)
        layout.setStretchFactor(self.results, 1)
        layout.addStretch()
        self._connect()
        self._changed()

    def _connect(self) -> None:
        self.settings.changed.connect(self._changed)
        for chooser in (self.settings.axis, self.settings.image):
            chooser.changed.connect(self.jobs.forget_refusal)
        self.jobs.clicked.connect(self.analyse)
        self.jobs.progressed.connect(self._follow)
        self.jobs.ended.connect(self._end)
        self.results.chosen.connect(self.go_to)
        self._session.jobs.changed.connect(self._enable)
        self._viewer.dims.events.current_step.connect(self._moved)
        self._viewer.layers.events.removed.connect(self._removed)

    # What is chosen

    def _target(self) -> tuple[Image, Series, Index]:
        """Return the chosen image, how it is looked at, and the index of the plane on screen."""
        series = self.settings.series()
        source = self.settings.image.value
        return source, series, layers.visible_index(self._viewer, source)

    def _changed(self) -> None:
        chosen, series = (self.settings.image.value, self.settings.axis_index), self._series
        if series and not self.jobs.busy and chosen != (self._source, series.axis):
            self._forget()
        self._enable()

    def _removed(self, _: Any = None) -> None:
        # Qt may have deleted this widget, as it is closed, before Python has; so below.
        with suppress(RuntimeError):
            if self._source is not None and self._source not in self._viewer.layers:
                self._forget()
            self._enable()

    def _forget(self, source: Image | None = None, series: Series | None = None) -> None:
        """Forget all results; the next are of a source."""
        self._source, self._series, self._work, self._shown = source, series, None, None
        self._maps, self._drawn = [], 0
        self.results.clear()

    def _enable(self) -> None:
        why = ""
        if self._session.jobs.current is not None:
            why = "another job of this plugin is running; wait for it, or cancel it"
        elif not self.settings.is_stack:
            why = "choose a focus stack first: an image of several planes"
        elif self.settings.axis_index < 0:
            why = ASKED
        elif self.settings.is_series:
            why = "planes of a focus stack are compared; this is taken as a time series"
        for control, tip in ((self.annotate_button, ANNOTATE_TIP), (self.fit_button, FIT_TIP)):
            control.setEnabled(not why)
            ui.tipped(control, f"{why}." if why else tip)

    # Analysis

    def analyse(self) -> None:
        """Find what is in focus where in the chosen stack or series, in the background."""
        with self.jobs.refusing():
            source, series, shown = self._target()
            if self.settings.is_series:
                self._score_frames(source, series, series.without(shown))
                return
            work = self._request(series, shown)
            self._forget(source, series)
            self._work = work
            self.jobs.run(lambda found: self._show(source, found), stack_jobs.analyse, work)

    def _request(self, series: Series, shown: Index) -> Analysis:
        place, axis = series.without(shown), series.channel_axis
        objects = self.settings.objects.value
        if objects is not None:  # those that do not fit are refused before the job
            labels_at(objects, series, place, shown)
        one_focus = axis is not None and self.settings.one_focus.isChecked()
        return Analysis(
            series,
            self.settings.config,
            place=None if self.settings.every else place,
            channel=place[axis] if one_focus else None,
            others=self.settings.followers(),
            labels=None if objects is None else lambda at: labels_at(objects, series, at, shown),
        )

    def _follow(self, _: Any) -> None:
        """Show the stacks of many as they come."""
        work = self._work
        if work is None or work.place is not None or len(work.stacks) == self._drawn:
            return
        if self._source in self._viewer.layers:
            self._show_maps(work)

    def _show(self, source: Image, work: Analysis) -> None:
        if source not in self._viewer.layers:
            raise DefocusError(f"layer {work.series.name!r} was deleted; its maps were dropped")
        self._show_maps(work)
        many = f"{len(work.stacks)} stacks: " if work.place is None else ""
        self.jobs.report(f"{many}maps are added as layers; altitude in planes, from 0")

    def _show_maps(self, work: Analysis) -> None:
        if not self._drawn:
            self._add_maps(work)
        for layer in self._maps:
            if layer in self._viewer.layers:
                layer.refresh()
        self._drawn = len(work.stacks)
        self._show_current()

    def _add_maps(self, work: Analysis) -> None:
        made = [(self._source, work.series, *key, data) for key, data in work.maps.items()]
        made += [
            (layer, work.others[layer], FUSED, place, data)
            for (layer, place), data in work.fused.items()
            if layer in self._viewer.layers
        ]
        for source, series, role, place, data in made:
            shown = stack_jobs.to_show(data)
            self._maps.append(put_map(self._viewer, shown, source, role, series, place))
        self._viewer.layers.selection.active = self._source

    def _score_frames(self, source: Image, series: Series, place: Index) -> None:
        def show(found: FrameScores) -> None:
            if source not in self._viewer.layers:
                raise DefocusError(f"layer {series.name!r} was deleted; its scores were dropped")
            self.results.show_frames(found, series.where(place))
            self.jobs.report("click on a frame, in the plot or the table, to see it")

        self._forget(source, series)
        self.jobs.run(show, stack_jobs.frames, series, place)

    def _end(self, cancelled: bool) -> None:
        work = self._work
        if cancelled and work is not None and work.place is None and work.stacks:
            total = len(work.places) * (1 + len(work.followers(work.places[0])))
            self.jobs.report(f"cancelled; {len(work.stacks)} of {total} stacks are done, and stay")
        # The user may have turned to another image meanwhile.
        self._changed()

    def _moved(self, _: Any = None) -> None:
        with suppress(RuntimeError):
            if self._work is not None and self._work.place is None:
                self._timer.start()

    def _show_current(self) -> None:
        """Show the curve of the stack; of many, that of the one on screen."""
        work, source = self._work, self._source
        if work is None or source not in self._viewer.layers:
            return
        place = self._place(source, work.series)
        found = work.stacks.get(place)
        if found is not None and found is not self._shown:
            self._shown = found
            self.results.show_stack(found, work.series.where(place))

    def _place(self, source: Image, series: Series) -> Index:
        """Return the place of the one stack that was analysed, else of the one on screen."""
        if self._work is not None and self._work.place is not None:
            return self._work.place
        return series.without(layers.visible_index(self._viewer, source))

    def go_to(self, plane: int) -> None:
        """Show a plane of the image that the results are of; maps above it are hidden."""
        source, series = self._source, self._series
        if source is None or series is None or source not in self._viewer.layers:
            return
        hide_maps(self._viewer, source)
        source.visible = True
        show_plane(self._viewer, source, series.index(self._place(source, series), plane))
        self.jobs.report(f"plane {plane} is on screen; the maps are hidden in the layer list")

    # Labels without painting

    def annotate(self) -> None:
        """Propose an annotation of all planes of the stack, in the background."""
        with self.jobs.refusing():
            source, series, shown = self._target()
            arguments = (series, series.without(shown), self.settings.config.register)
            add = partial(self._add_annotation, source)
            self.jobs.run(add, stack_jobs.annotate_planes, *arguments)

    def _add_annotation(self, source: Image, data: stack_jobs.Plane) -> None:
        if source not in self._viewer.layers:
            raise DefocusError(f"layer {source.name!r} was deleted; its annotation was dropped")
        if not data.any():
            raise DefocusError("no plane is clearly sharper than another; paint in Annotate")
        hide_maps(self._viewer, source)
        labels = add_painted(
            self._viewer,
            data,
            f"{source.name} {ANNOTATION}, all planes",
            # No `source_id`: in Annotate that is for labels of a single plane.
            {layers.KEY: {"role": ANNOTATION, "source": source.name}},
            layers.geometry(source),
        )
        self._viewer.layers.selection.active = labels
        self.jobs.report("correct it with the brush; Annotate adds planes of it to the patch set")

    def fit(self) -> None:
        """Fit a metric to the stack, in the background, and offer it in Detect."""
        with self.jobs.refusing():
            _, series, shown = self._target()
            training = replace(TrainingConfig(), device=preferred("device"))
            config = FitConfig(method=self.method.currentText(), training=training)
            register = self.settings.config.register
            arguments = (series, series.without(shown), config, register)
            offer = partial(offer_trained, self._session, self.jobs)
            self.jobs.run(offer, stack_jobs.fit_stack, *arguments)
