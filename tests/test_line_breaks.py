"""How wide text is, and where it may be broken, in several scripts."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.line_breaks import LINE_COLUMNS, columns, pieces, shortened

FAMILY = "👩\u200d👩\u200d👧"


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        ("abc d", 5),
        ("äöß", 3),
        ("日本", 4),
        ("한국", 4),
        ("ｶﾅ", 2),
        ("ｗ", 2),
        ("e\u0301", 1),
        ("👍🏽", 2),
        (FAMILY, 2),
        ("שלום", 4),
        ("नमस्ते", 4),
        ("a\u200fb", 2),
        ("", 0),
    ],
)
def test_wide_characters_take_two_columns_and_attached_marks_none(text: str, wide: int) -> None:
    assert columns(text) == wide


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("one two, three", ["one", "two,", "three"]),
        ("il dit : « oui ! »", ["il", "dit :", "« oui ! »"]),
        ("¿ qué ?", ["¿ qué ?"]),
        ("彼は「そう、か。」", ["彼", "は", "「そ", "う、", "か。」"]),
        ("ちょっとコーヒー", ["ちょっ", "と", "コー", "ヒー"]),
        ("GPUは速い", ["GPU", "は", "速", "い"]),
        ("한국어 자막", ["한국어", "자막"]),
        ("a- b", ["a-", "b"]),
        ("", []),
    ],
)
def test_breaks_are_where_each_script_has_them(text: str, parts: list[str]) -> None:
    assert [part for part, _ in pieces(text)] == parts


def test_a_word_wider_than_a_line_is_broken_where_the_line_is_full() -> None:
    assert [part for part, _ in pieces("x" * 100)] == ["x" * 42, "x" * 42, "x" * 16]
    accented = "e\u0301" * 43
    assert [part for part, _ in pieces(accented)] == ["e\u0301" * 42, "e\u0301"]
    assert [columns(part) for part, _ in pieces("한" * 22)] == [42, 2]


def test_marks_that_stick_never_make_a_part_wider_than_a_line() -> None:
    parts = pieces("a" + " !" * 100)
    assert [columns(part) for part, _ in parts] == [41, 41, 41, 41, 33]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=120))
@example(f"a {FAMILY * 30} b")
@example("。" * 60)
@example("\u0301" * 60)
def test_parts_together_are_the_text_and_none_is_wider_than_a_line(text: str) -> None:
    parts = pieces(text)
    assert "".join(" " * is_spaced + part for part, is_spaced in parts).strip() == " ".join(text.split())
    assert all(0 < columns(part) <= LINE_COLUMNS for part, _ in parts)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60), st.integers(2, 40))
def test_a_name_is_shortened_to_what_there_is_room_for(name: str, limit: int) -> None:
    found = shortened(name, limit)
    assert columns(found) <= limit
    assert found == name or (columns(name) > limit and name.startswith(found[:-1]) and found.endswith("…"))
