"""Everything that is shipped or installed has a license that lets a user have it."""

import pytest
from licenses import license_of, packages, why_allowed


def test_every_package_and_font_is_free_or_listed_with_a_reason():
    found = {package.name: license_of(package) for package in packages()}
    assert len(found) > 250
    assert [name for name, said in found.items() if why_allowed(name.lower(), said) is None] == []


@pytest.mark.parametrize(
    "said", ["", "GPL-3.0-only", "GNU Affero General Public License v3", "CC-BY-NC-4.0", "Proprietary"]
)
def test_what_is_not_free_is_refused(said):
    assert why_allowed("some-package", said) is None


@pytest.mark.parametrize("said", ["MIT", "Apache-2.0 AND MIT", "BSD License", "OFL-1.1", "MPL-2.0 AND MIT"])
def test_what_is_free_is_taken(said):
    assert why_allowed("some-package", said) == "free"
