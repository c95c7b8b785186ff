"""The constants that come with Heliostat."""

from heliostat.cluster.catalogue import builtin
from heliostat.placement.efficiency import MULTIPROCESSORS, fitted, speed_of
from heliostat.placement.fit import OF_TYPE, is_fitted_on


def test_every_constant_has_a_source_and_lies_in_its_range() -> None:
    for name, one in fitted().types.items():
        assert one.source, name
        assert one.date, name
        assert 0.3 < one.matmul <= 1.0, name
        assert 0.1 < one.attention <= 1.0, name
        assert 0.1 < one.memory <= 1.0, name
        assert 0.01 < one.uncertainty < 0.5, name
        assert name == "default" or set(one.errors) == set(OF_TYPE)


def test_only_shapes_of_the_fitted_half_were_used() -> None:
    assert fitted().fitted_on
    assert all(is_fitted_on(shape) for shape in fitted().fitted_on)


def test_relatives_stand_in_and_strangers_get_the_default_with_a_wider_band() -> None:
    constants = fitted()
    assert constants.of("A800-80GB-SXM") == constants.types["A100-80GB-SXM"]
    assert constants.of("RTX-4090") == constants.types["default"]
    known = [one.uncertainty for name, one in constants.types.items() if name != "default"]
    assert constants.types["default"].uncertainty > max(known)


def test_every_nvidia_type_of_the_catalogue_has_its_multiprocessors() -> None:
    for name, one in builtin().types.items():
        if one.tflops and any(name.startswith(prefix) for prefix in MULTIPROCESSORS):
            assert speed_of(name).multiprocessors >= 40
