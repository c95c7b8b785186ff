"""Which shapes there are, and whether they find room together."""

from heliostat.placement.constraints import Pins
from heliostat.placement.ground import Ground, Shape
from heliostat.placement.search.costs import PLAIN
from heliostat.placement.search.menu import ZERO, Menu, goes_with, options_of, suits
from tests.placement.search.cases import A100, V100, Box, cluster


def menu(*boxes: Box, **pins: int) -> Menu:
    return Menu(Ground(cluster(boxes)), 8, Pins.model_validate(pins))


def test_few_devices_have_every_shape() -> None:
    some = menu(Box(A100, 2), Box(V100, 2))
    assert some.is_full
    assert set(some.shapes(8)) == {
        *(Shape((a, v), 1) for a in range(3) for v in range(3) if a + v),
        Shape((1, 0), 2), Shape((0, 1), 2), Shape((1, 1), 2),
    }  # fmt: skip
    assert all(shape.width == 1 for shape in some.shapes(1))


def test_a_group_is_not_torn_over_nodes() -> None:
    some = menu(Box(A100, 3), Box(A100, 3))
    assert some.has_room([Shape((2,), 2), Shape((2,), 1)])
    assert not some.has_room([Shape((3,), 2)])
    assert not some.has_room([Shape((2,), 2), Shape((3,), 1)])
    assert Shape((1,), 4) not in some.shapes(8)


def test_many_devices_have_a_short_menu_with_all_of_them_on_it() -> None:
    some = menu(*[Box(A100, 8)] * 16, *[Box(V100, 8)] * 8)
    assert not some.is_full
    shapes = some.shapes(1024)
    assert len(shapes) < 400
    for shape in (Shape((128, 0), 1), Shape((16, 0), 8), Shape((0, 64), 1), Shape((128, 64), 1), Shape((1, 0), 8)):
        assert shape in shapes
    assert all(some.has_room([shape]) for shape in shapes)


def test_pins_leave_what_they_allow() -> None:
    assert {shape.tensor for shape in menu(Box(A100, 4), tensor_parallel=2).shapes(8)} == {2}
    assert {shape.width for shape in menu(Box(A100, 4), data_parallel=2).shapes(8)} == {2}
    assert {option.recompute for option in options_of(Pins(recompute="full"))} == {"full"}


def test_zero_bubble_goes_with_gradients_that_are_whole() -> None:
    assert [zero for zero in ZERO if goes_with("zero-bubble", zero)] == [0, 1]
    assert all(goes_with("1f1b", zero) for zero in ZERO)


def test_options_suit_what_they_mean_something_on() -> None:
    one, two = Shape((1,), 1), Shape((2,), 1)
    assert not suits(PLAIN._replace(zero=1), one, Pins())
    assert suits(PLAIN._replace(zero=1), two, Pins())
    assert not suits(PLAIN._replace(sequence_parallel=True), two, Pins())
    assert suits(PLAIN, one, Pins(zero=2))
    assert not suits(PLAIN, two, Pins(zero=2))
