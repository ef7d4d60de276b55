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
