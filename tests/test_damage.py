"""Belief in pictures after damage, and the discovery of lost packets."""

from stages.damage import HEAL_US, Continuity, Health

SECOND = 1_000_000
FRAME = 40_000


def test_pictures_after_damage_are_refused_until_a_key_frame_behind_it() -> None:
    health = Health()
    assert health.admits(0, key=True, corrupt=False)
    health.fail(5 * FRAME)
    assert not health.admits(6 * FRAME, key=False, corrupt=False)
    assert health.admits(7 * FRAME, key=True, corrupt=False)
    assert health.admits(8 * FRAME, key=False, corrupt=False)


def test_a_key_frame_from_before_the_damage_is_good_but_heals_nothing() -> None:
    health = Health()
    health.fail(5 * FRAME)
    assert health.admits(4 * FRAME, key=True, corrupt=False)
    assert not health.admits(6 * FRAME, key=False, corrupt=False)


def test_a_stream_without_key_frames_heals_with_time() -> None:
    health = Health()
    health.fail(0)
    assert not health.admits(HEAL_US, key=False, corrupt=False)
    assert health.admits(HEAL_US + 1, key=False, corrupt=False)


def test_a_corrupt_picture_spoils_what_follows_but_not_at_the_start() -> None:
    health = Health()
    assert not health.admits(0, key=False, corrupt=True)  # a leading picture of an open GOP
    assert health.admits(FRAME, key=False, corrupt=False)
    assert not health.admits(2 * FRAME, key=False, corrupt=True)
    assert not health.admits(3 * FRAME, key=False, corrupt=False)


def test_a_hole_in_an_even_stream_is_noticed() -> None:
    watch = Continuity(25.0, constant_rate=True)
    assert all(watch.pause(time, FRAME) is None for time in range(0, SECOND, FRAME))
    assert watch.pause(9 * SECOND, FRAME) == SECOND
    assert watch.pause(9 * SECOND + FRAME, FRAME) is None
    assert watch.pause(20 * SECOND, FRAME) == 9 * SECOND + 2 * FRAME


def test_reordered_frames_are_no_hole() -> None:
    watch = Continuity(25.0, constant_rate=True)
    order = [0, 4, 2, 1, 3, 8, 6, 5, 7, 16, 12, 10, 9, 11, 14, 13, 15]
    assert all(watch.pause(number * FRAME, FRAME) is None for number in order)


def test_a_frame_that_lasts_covers_the_pause() -> None:
    watch = Continuity(25.0, constant_rate=False)
    assert watch.pause(0, 30 * SECOND) is None
    assert watch.pause(30 * SECOND, FRAME) is None


def test_pauses_become_usual_where_the_rate_may_vary() -> None:
    watch = Continuity(None, constant_rate=False)
    assert watch.pause(0, 0) is None
    assert watch.pause(5 * SECOND, 0) == 0
    assert watch.pause(12 * SECOND, 0) is None
