"""Our top-level names are plain words; nobody else's distribution may bring the same."""

from importlib.metadata import packages_distributions

import pytest


@pytest.mark.parametrize("name", ["service", "validators", "storage", "migrations"])
def test_no_other_distribution_brings_a_package_of_our_name(name: str) -> None:
    assert set(packages_distributions().get(name, ())) <= {"greenroom"}
