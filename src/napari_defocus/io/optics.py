"""What a file tells of the microscope: objective and channels."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from xml.etree import ElementTree

_NAMES = {
    "na": ("LensNA", "NumericalAperture", "numericalAperture"),
    "magnification": ("NominalMagnification", "Magnification", "objective", "Objective"),
    "emission_nm": ("EmissionWavelength",),
}


@dataclass(frozen=True)
class Optics:
    """The microscope, as far as a file tells it.

    Parameters
    ----------
    channels : tuple of str
        Names of the channels.
    na, magnification : float or None
        Of the objective.
    emission_nm : tuple of float
        Emission wavelengths, in the order in which the file has them.
    """

    channels: tuple[str, ...] = ()
    na: float | None = None
    magnification: float | None = None
    emission_nm: tuple[float, ...] = ()

    @property
    def point_um(self) -> float | None:
        """Radius, in micrometres, of the disc as wide as the image of a point in focus.

        The Gaussian nearest to the point spread of a widefield fluorescence microscope has a
        standard deviation of .21 wavelengths / NA (B. Zhang et al., Applied Optics 46(10), 2007);
        a disc of twice that radius has its second moment. Of several channels the longest
        wavelength counts. None where objective or wavelength is not known.
        """
        if self.na is None or not self.emission_nm:
            return None
        return 2 * 0.21 * max(self.emission_nm) / 1000 / self.na


def optics_of(xml: ElementTree.Element, channels: tuple[str, ...] = (), image: int = 0) -> Optics:
    """Read the optics out of metadata of OME, Zeiss, Leica or a slide scanner.

    They name all that is mounted on the microscope: what the image refers to counts, and the
    channels of the image itself.

    Parameters
    ----------
    xml : Element
        The metadata.
    channels : tuple of str
        Names of the channels.
    image : int
        Which of the images that it describes.
    """
    told = _first(xml, "Information")  # of Zeiss; what else is there are settings of devices
    told = xml if told is None else told
    images = [element for element in told.iter() if _tag(element) == "Image"]
    own = images[min(image, len(images) - 1)] if images else told
    used = {
        name
        for element in own.iter()
        if _tag(element) in ("ObjectiveSettings", "ObjectiveRef")
        for name in (element.get("ID"), element.get("Id"))
        if name
    }
    mounted = [element for element in told.iter() if _tag(element) == "Objective"]
    objectives = [
        element for element in mounted if {element.get("ID"), element.get("Id")} & used
    ] or mounted
    lens = objectives[0] if objectives else told
    return Optics(
        channels,
        next(_numbers(lens, _NAMES["na"]), None),
        next(_numbers(lens, _NAMES["magnification"]), None),
        tuple(_numbers(own, _NAMES["emission_nm"])),
    )


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _first(xml: ElementTree.Element, tag: str) -> ElementTree.Element | None:
    return next((element for element in xml.iter() if _tag(element) == tag), None)


def _numbers(xml: ElementTree.Element, names: tuple[str, ...]) -> Iterator[float]:
    """Yield the positive numbers that attributes or elements of a name hold."""
    for element in xml.iter():
        texts = [value for name, value in element.attrib.items() if name in names]
        if _tag(element) in names:
            texts.append(element.text or "")
        for text in texts:
            with suppress(ValueError):
                if (number := float(text.rstrip("xX"))) > 0:
                    yield number
