"""Nothing under the GPL or AGPL slips into the product unseen."""

import pytest

from scripts import licences


@pytest.fixture(scope="module")
def found():
    return licences.parts()


def test_no_copyleft_part_is_unaccounted_for(found):
    assert len(found) > 60
    assert not licences.unaccounted(found)


def test_every_part_states_a_licence(found):
    assert {p.name for p in found if p.licence == "not stated"} <= {"cuda-toolkit"}  # a package of names only


@pytest.mark.parametrize(
    ("text", "copyleft"),
    [
        ("GPL-3.0-only", True),
        ("GPLv2+", True),
        ("AGPL-3.0-or-later", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("MIT AND GPL-2.0-only", True),
        ("GPL-2.0-only OR MIT", False),
        ("LGPL-2.1-or-later", False),
        ("GNU Library or Lesser General Public License (LGPL)", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("BSD-3-Clause", False),
    ],
)
def test_the_gpl_is_told_from_the_rest(text, copyleft):
    assert licences.is_copyleft(text) is copyleft


def test_a_copyleft_package_is_found_by_its_metadata_and_by_its_binaries():
    part = lambda licence, *binaries: licences.Part("new", "1", licence, True, binaries)
    assert licences.unaccounted([part("GPL-3.0-only")])
    assert licences.unaccounted([part("BSD-3-Clause", "libx264")])
    assert not licences.unaccounted([part("MIT")])


def test_the_readers_of_the_tests_are_not_in_the_product(found):
    assert not {"mutagen", "pytest", "hypothesis"} & {p.name for p in found}


def test_the_committed_table_names_every_pin_in_its_version():
    text = licences.TABLE.read_text()
    for pin in licences.pins():
        (version,) = (s.version for s in pin.specifier)
        assert f"| **{licences._name(pin.name)}** | {version} |" in text, f"run scripts/licences.py: {pin}"


def test_the_sbom_names_every_part_once(found):
    bom = licences.sbom(found)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    urls = [component["purl"] for component in bom["components"]]
    assert len(urls) == len(set(urls)) == len(found)
    assert "pkg:pypi/torch@2.11.0" in urls
