import pytest

from napari_defocus.report.wells import Well, find_well, plate_size


@pytest.mark.parametrize(
    ("name", "well", "site"),
    [
        ("mcf-z-stacks-03212011_a01_s1_w1a571d43d", "A01", 1),
        ("BBBC006_z_aligned__a19__s2__w1_10", "A19", 2),
        ("Plate1_P24_site_12_Ch1", "P24", 12),
        ("r02c03f04p01-ch1sk1fk1fl1", "B03", 4),
        ("AssayPlate_Greiner_B02_T0001F003L01A01Z01C01", "B02", 3),
        ("scan B-7", "B07", None),
        ("AF48", "AF48", None),
    ],
)
def test_wells_and_sites_in_names(name, well, site):
    found, at = find_well(name)
    assert (str(found), at) == (well, site)


@pytest.mark.parametrize(
    "name", ["photo", "IMG_2031", "stack_Z01", "A00", "Q12", "A49", "DNA01", "cell_A01b", "r00c01"]
)
def test_names_without_a_well(name):
    assert find_well(name) == (None, None)


def test_the_smallest_plate_that_has_all_wells():
    assert plate_size([Well(0, 0), Well(1, 2)]) == (2, 3)
    assert plate_size([Well(7, 11)]) == (8, 12)
    assert plate_size([Well(15, 23)]) == (16, 24)
    assert plate_size([Well(31, 0)]) == (32, 48)
