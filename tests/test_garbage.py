"""How often the collector comes by while models are loaded."""

import gc
from collections.abc import Iterator

import pytest

from stages.garbage import YOUNG_OBJECTS, collected_seldom


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(500, 11, 12)
    yield
    gc.set_threshold(*before)


def test_only_the_youngest_objects_wait_longer() -> None:
    with collected_seldom():
        assert gc.get_threshold() == (YOUNG_OBJECTS, 11, 12)
    assert gc.get_threshold() == (500, 11, 12)


def test_a_failure_leaves_it_as_it_was() -> None:
    with pytest.raises(ValueError, match="damaged"), collected_seldom():
        raise ValueError("damaged")
    assert gc.get_threshold() == (500, 11, 12)


def test_a_process_that_collects_even_less_often_is_left_alone() -> None:
    gc.set_threshold(2 * YOUNG_OBJECTS, 11, 12)
    with collected_seldom():
        assert gc.get_threshold() == (2 * YOUNG_OBJECTS, 11, 12)


def test_a_collector_that_is_off_stays_off() -> None:
    gc.set_threshold(0, 11, 12)
    with collected_seldom():
        assert gc.get_threshold() == (0, 11, 12)
