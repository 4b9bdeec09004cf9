from __future__ import annotations

import pytest
from editguard.probes.word_boundaries import Writing, classify_writing, find_cut_word, fold
from hypothesis import given
from hypothesis import strategies as st

INSIDE = [
    ("Bart lives", "art", "Bart"),
    ("artist of", "art", "artist"),
    ("in 2020 it", "20", "2020"),
    ("in 2020 it", "202", "2020"),
    ("2Pac was", "Pac", "2Pac"),
    ("Nigeria is", "Niger", "Nigeria"),
    ("Mars is", "Mar", "Mars"),
    ("Jose\u0301 is", "Jose", "Jose\u0301"),
    ("1,020 is", "20", "020"),
    ("20.5 is", "20", "20"),
    ("iPhone7 is", "iPhone", "iPhone7"),
    ("артист", "арт", "артист"),
    ("Партия", "арт", "Партия"),
    ("Иранистика", "Иран", "Иранистика"),
    ("2020年", "20", "2020年"),
    ("กินข้าว", "ก", "กินข้าว"),
]
WHOLE = [
    ("Chicago is", "Chicago"),
    ("It is Chicago.", "Chicago"),
    ("Chicago's mayor", "Chicago"),
    ("Chicago’s mayor", "Chicago"),
    ("l'Italie est", "Italie"),
    ("Chicago-based", "Chicago"),
    ("Berlins Bürger", "Berlin"),
    ("столица Парижа", "Париж"),
    ("столица Рима", "Рим"),
    ("서울에서는", "서울"),
    ("서울은", "서울"),
    ("בירושלים יש", "ירושלים"),
    ("中国的首都", "国"),
    ("在Paris的", "Paris"),
    ("20年", "20"),
    ("it was 20.", "20"),
    ("กรุงเทพ คือ", "กรุง"),
    ("চীনের রাজধানী", "চীন"),
    ("(NATO) is", "NATO"),
]


@pytest.mark.parametrize(("text", "name", "word"), INSIDE)
def test_find_cut_word_inside_a_word_returns_the_word(text: str, name: str, word: str) -> None:
    start = text.index(name)
    assert find_cut_word(text, start, start + len(name)) == word


@pytest.mark.parametrize(("text", "name"), WHOLE)
def test_find_cut_word_of_a_whole_word_returns_none(text: str, name: str) -> None:
    start = text.index(name)
    assert find_cut_word(text, start, start + len(name)) is None


@given(before=st.text(max_size=5), name=st.text(min_size=1, max_size=8), after=st.text(max_size=5))
def test_find_cut_word_between_spaces_returns_none(before: str, name: str, after: str) -> None:
    text = f"{before} {name} {after}"
    assert find_cut_word(text, len(before) + 1, len(before) + 1 + len(name)) is None


@given(before=st.from_regex(r"[A-Za-z]", fullmatch=True), name=st.from_regex(r"[A-Za-z]{1,8}", fullmatch=True))
def test_find_cut_word_after_a_latin_letter_returns_the_word(before: str, name: str) -> None:
    assert find_cut_word(f"a {before}{name} b", 3, 3 + len(name)) == before + name


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Beyoncé", "BEYONCE"),
        ("Chicago’s", "Chicago's"),
        ("Spider-Man", "Spider Man"),
        ("ＮＡＳＡ", "nasa"),
        ("New  York", "New York"),
        ("İstanbul", "istanbul"),
        ("Straße", "STRASSE"),
    ],
)
def test_fold_of_two_spellings_is_the_same(first: str, second: str) -> None:
    assert fold(first) == fold(second)


@given(st.text(max_size=20))
def test_fold_twice_is_fold_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(
    ("character", "writing"),
    [
        *((character, Writing.SPACED) for character in "a한1"),
        *((character, Writing.EAST_ASIAN) for character in "国：カ"),
        *((character, Writing.SOUTHEAST_ASIAN) for character in "กខမ"),
    ],
)
def test_classify_writing_of_a_character_is_its_scripts(character: str, writing: Writing) -> None:
    assert classify_writing(character) is writing
