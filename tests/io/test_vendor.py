"""Formats of microscopes and slides. Most need the extra `formats`, and are skipped without it."""

import pickle
import sys
import time
import types
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from napari_defocus import DetectionConfig, detect
from napari_defocus.core.errors import DefocusError, Notice
from napari_defocus.io import foreign
from napari_defocus.io.folder import find_images
from napari_defocus.io.open import count_images, open_source, read_image
from napari_defocus.io.optics import Optics, optics_of
from napari_defocus.io.vendor import SlideSource

STEP_M = 0.325e-6


def write_czi(path, image, **metadata):
    """Write (C, Z, Y, X) or (1, 1, Y, X, 3) as CZI, in two tiles."""
    czi = pytest.importorskip("pylibCZIrw.czi")
    half = image.shape[3] // 2
    with czi.create_czi(str(path)) as file:
        for c, z in np.ndindex(image.shape[:2]):
            plane = image[c, z].reshape(*image.shape[2:4], -1)
            for part in (slice(0, half), slice(half, None)):
                data = np.ascontiguousarray(plane[:, part, ::-1])  # blue first
                file.write(data=data, plane={"C": c, "Z": z, "T": 0}, location=(part.start, 0))
        file.write_metadata("x", scale_x=STEP_M, scale_y=STEP_M, scale_z=4 * STEP_M, **metadata)


@pytest.fixture
def stack():
    return np.random.default_rng(0).integers(0, 60000, (2, 3, 40, 60)).astype(np.uint16)


def test_czi(tmp_path, stack):
    path = tmp_path / "a.czi"
    write_czi(path, stack, channel_names={0: "DAPI", 1: "GFP"})
    source = open_source(path)
    assert source.axes == "CZYX"
    assert source.dtype == np.uint16
    assert source.pixel_size_um == pytest.approx(0.325)
    assert source.grid.known_scale()["Z"] == pytest.approx(1.3)
    assert source.optics.channels == ("DAPI", "GFP")
    assert np.array_equal(source.read_whole(), stack)
    piece = source.read((1, 2), slice(5, 20), slice(25, 50))  # across the tiles
    assert np.array_equal(piece, stack[1, 2, 5:20, 25:50])
    assert source.block == (40, 30)
    other = pickle.loads(pickle.dumps(source))
    assert np.array_equal(other.read((0, 1)), stack[0, 1])
    assert find_images([tmp_path]) == [path]


def test_czi_of_colours(tmp_path):
    image = np.random.default_rng(1).integers(0, 255, (1, 1, 40, 60, 3)).astype(np.uint8)
    write_czi(tmp_path / "a.czi", image)
    assert count_images(tmp_path / "a.czi") == 1
    source = open_source(tmp_path / "a.czi")
    assert source.axes == "YXS"
    assert np.array_equal(source.read(), image[0, 0])


def test_the_mask_is_that_of_tiff(tmp_path, scenes):
    image = scenes[0][1]
    write_czi(tmp_path / "a.czi", image[np.newaxis, np.newaxis])
    read = read_image(tmp_path / "a.czi")
    config = DetectionConfig(detector="metric")
    assert np.array_equal(detect(read.data, config=config).mask, detect(image, config=config).mask)


def test_a_czi_cut_short_costs_a_line(tmp_path, stack):
    write_czi(tmp_path / "a.czi", stack)
    content = (tmp_path / "a.czi").read_bytes()
    (tmp_path / "cut.czi").write_bytes(content[:200])
    (tmp_path / "foreign.czi").write_bytes(b"something else altogether")
    for name in ("cut.czi", "foreign.czi"):
        with pytest.raises(DefocusError, match=f"{name} is damaged"):
            open_source(tmp_path / name)


def test_a_slide_is_read_tile_by_tile(tmp_path):
    pytest.importorskip("openslide")
    image = np.random.default_rng(2).integers(0, 255, (600, 700, 3)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tif:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate"}
        options |= {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
        tif.write(image, **options)
    source = SlideSource(tmp_path / "slide.tif", None)
    assert (source.axes, source.shape) == ("YXS", (600, 700, 3))
    assert source.pixel_size_um == pytest.approx(0.25)
    assert np.array_equal(source.read((), slice(100, 400), slice(650, 700)), image[100:400, 650:])
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(), image)


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("a.czi", "pylibCZIrw.czi", "pylibCZIrw"),
        ("a.ND2", "bioio", "bioio-nd2"),
        ("a.lif", "liffile", "liffile"),
        ("a.mrxs", "openslide", "OpenSlide"),
    ],
)
def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch, name, module, words):
    (tmp_path / name).write_bytes(b"ZISRAWFILE and more")
    monkeypatch.setitem(sys.modules, module, None)
    for use in (open_source, count_images)[: 1 if module == "openslide" else 2]:
        with pytest.raises(DefocusError, match=words) as told:
            use(tmp_path / name)
        assert "napari-defocus[formats]" in str(told.value)
        assert "\n" not in str(told.value)


def test_a_library_that_hangs_or_fails_costs_a_line(tmp_path, monkeypatch):
    (tmp_path / "a.lif").write_bytes(b"p\0\0\0")
    monkeypatch.setattr(foreign, "MOST_S", 0.05)
    fake = types.ModuleType("liffile")
    monkeypatch.setitem(sys.modules, "liffile", fake)
    fake.LifFile = lambda path: time.sleep(0.5)
    with pytest.raises(DefocusError, match=r"a\.lif is damaged.*no answer in 0 seconds"):
        open_source(tmp_path / "a.lif")
    fake.LifFile = lambda path: 1 // 0
    with pytest.raises(DefocusError, match=r"a\.lif is damaged.*by zero"):
        open_source(tmp_path / "a.lif")


class Hanging:
    """A file of Leica's whose frames hang or cannot be decoded."""

    name, shape, dtype, dims, coords = "a", (2, 9, 9), np.dtype("u1"), ("T", "Y", "X"), {}
    xml_element = ElementTree.Element("Image")

    def frame(self, T):  # as the library calls it
        return time.sleep(0.5) if T else 1 // 0


def test_a_library_that_hangs_or_fails_while_reading_costs_a_line(tmp_path, monkeypatch):
    (tmp_path / "a.lif").write_bytes(b"p\0\0\0")
    fake = types.ModuleType("liffile")
    fake.LifFile = lambda path: types.SimpleNamespace(images=[Hanging()])
    monkeypatch.setitem(sys.modules, "liffile", fake)
    source = open_source(tmp_path / "a.lif")
    with pytest.raises(DefocusError, match=r"plane T=0 of .*a\.lif cannot be read.*by zero"):
        source.read((0,))
    monkeypatch.setattr(foreign, "MOST_S", 0.05)
    with pytest.raises(DefocusError, match=r"plane T=1 of .*a\.lif cannot be read.*no answer"):
        source.read((1,))


def test_which_of_several_images_is_taken_is_told(tmp_path, monkeypatch):
    class Larger(Hanging):
        name, shape = "b", (3, 9, 9)

    (tmp_path / "a.lif").write_bytes(b"p\0\0\0")
    fake = types.ModuleType("liffile")
    fake.LifFile = lambda path: types.SimpleNamespace(images=[Hanging(), Larger()])
    monkeypatch.setitem(sys.modules, "liffile", fake)
    with pytest.warns(Notice, match=r"0: a, 2 x 9 x 9; 1: b, 3 x 9 x 9\); number 1, the largest"):
        assert open_source(tmp_path / "a.lif").shape == (3, 9, 9)


def test_frames_of_a_scan_along_xz_are_put_together(tmp_path, monkeypatch):
    stack = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.uint8)

    class Scan(Hanging):
        shape, dims = stack.shape, ("Y", "Z", "X")

        def frame(self, Y):
            return stack[Y]

    (tmp_path / "a.lif").write_bytes(b"p\0\0\0")
    fake = types.ModuleType("liffile")
    fake.LifFile = lambda path: types.SimpleNamespace(images=[Scan()])
    monkeypatch.setitem(sys.modules, "liffile", fake)
    source = open_source(tmp_path / "a.lif")
    assert (source.axes, source.block) == ("ZYX", (1, 4))
    assert np.array_equal(source.read_whole(), stack.swapaxes(0, 1))


def test_scenes_of_a_czi(tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi")
    images = np.random.default_rng(3).integers(0, 255, (2, 20, 30, 1)).astype(np.uint8)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for scene, image in enumerate(images):
            file.write(data=image, location=(1000 * scene, 7), scene=scene)
        file.write_metadata("x")
    assert count_images(tmp_path / "a.czi") == 2
    with pytest.warns(Notice, match=r"holds 2 images .*the first is taken"):
        assert np.array_equal(open_source(tmp_path / "a.czi").read(), images[0, ..., 0])
    source = open_source(tmp_path / "a.czi", series=1)
    assert (source.axes, source.shape) == ("YX", (20, 30))
    assert np.array_equal(source.read((), slice(3, 9)), images[1, 3:9, :, 0])
    with pytest.raises(DefocusError, match="images 0 to 1; there is no series 2"):
        open_source(tmp_path / "a.czi", series=2)


def write_svs(path, image):
    """Write a slide as Aperio's scanners do, less its label."""
    told = "Aperio Image Library v12\r\n700x600 (256x256)|AppMag = 20|MPP = 0.4990|Left = 25.7"
    with tifffile.TiffWriter(path) as tif:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate"}
        tif.write(image, description=told, metadata=None, **options)
        small = np.ascontiguousarray(image[::4, ::4])
        tif.write(small, description="Aperio Image Library v12", metadata=None, **options)


def test_svs(tmp_path, scenes):
    image = np.stack([scenes[0][1], scenes[0][1][::-1], scenes[1][1]], -1)
    write_svs(tmp_path / "a.svs", image)
    source = open_source(tmp_path / "a.svs")
    assert (source.axes, source.shape) == ("YXS", image.shape)
    assert source.pixel_size_um == pytest.approx(0.499)
    assert source.optics.magnification == 20
    config = DetectionConfig(detector="metric")
    mask = detect(read_image(tmp_path / "a.svs").data, config=config).mask
    assert np.array_equal(mask, detect(image, config=config).mask)


def test_a_preview_does_not_pass_for_the_image(tmp_path):
    """A VSI is a TIFF with a preview; the image lies in a folder beside it."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9), np.uint8))
    (tmp_path / "a.tif").rename(tmp_path / "a.vsi")
    for use in (open_source, count_images):
        with pytest.raises(DefocusError, match="bioio"):
            use(tmp_path / "a.vsi")


def test_the_objective_in_use_counts():
    """Microscopes describe all that is mounted; Zeiss before that what its devices can do."""
    objective = (
        '<Objective Id="{}"><LensNA>{}</LensNA><NominalMagnification>{}</NominalMagnification>'
        "</Objective>"
    )
    zeiss = ElementTree.fromstring(
        f"""<ImageDocument><Metadata><Experiment><LensNA>0.7</LensNA>
        <Magnification>0.05</Magnification></Experiment><Information><Instrument><Objectives>
        {objective.format("a", 0.3, 5)}{objective.format("b", 1.2, 50)}</Objectives></Instrument>
        <Image><ObjectiveSettings><ObjectiveRef Id="b"/></ObjectiveSettings>
        <EmissionWavelength>520</EmissionWavelength></Image></Information></Metadata>
        </ImageDocument>"""
    )
    assert optics_of(zeiss) == Optics((), 1.2, 50.0, (520.0,))
    image = '<Image><ObjectiveSettings ID="{}"/><Channel EmissionWavelength="{}"/></Image>'
    ome = ElementTree.fromstring(
        '<OME><Instrument><Objective ID="a" LensNA="0.3"/><Objective ID="b" LensNA="0.9"/>'
        f"</Instrument>{image.format('a', 461)}{image.format('b', 520)}</OME>"
    )
    assert optics_of(ome) == Optics((), 0.3, None, (461.0,))
    assert optics_of(ome, image=1) == Optics((), 0.9, None, (520.0,))


def test_optics_of_ome_and_of_others():
    ome = """<OME xmlns="x"><Instrument><Objective LensNA="1.2" NominalMagnification="60"/>
    </Instrument><Channel EmissionWavelength="461"/><Channel EmissionWavelength="none"/></OME>"""
    assert optics_of(ElementTree.fromstring(ome)) == Optics((), 1.2, 60.0, (461.0,))
    zeiss = "<D><LensNA>0.8</LensNA><EmissionWavelength>520</EmissionWavelength></D>"
    assert optics_of(ElementTree.fromstring(zeiss), ("A",)) == Optics(("A",), 0.8, None, (520.0,))
