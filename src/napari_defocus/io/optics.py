"""What a file tells of the microscope: objective and channels."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from xml.etree import ElementTree

_NAMES = {
    "na": ("LensNA", "NumericalAperture"),
    "magnification": ("NominalMagnification", "Magnification"),
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


def optics_of(xml: ElementTree.Element, channels: tuple[str, ...] = ()) -> Optics:
    """Read the optics out of metadata of OME, Zeiss or Leica, which use the same words."""
    found = {kind: list(_numbers(xml, names)) for kind, names in _NAMES.items()}
    return Optics(
        channels,
        next(iter(found["na"]), None),
        next(iter(found["magnification"]), None),
        tuple(found["emission_nm"]),
    )


def _numbers(xml: ElementTree.Element, names: tuple[str, ...]) -> Iterator[float]:
    """Yield the positive numbers that attributes or elements of a name hold."""
    for element in xml.iter():
        texts = [value for name, value in element.attrib.items() if name in names]
        if element.tag.rpartition("}")[2] in names:
            texts.append(element.text or "")
        for text in texts:
            with suppress(ValueError):
                if (number := float(text)) > 0:
                    yield number
