from __future__ import annotations

import pytest
from editguard.probes.requests.spacing import choose_separator
from hypothesis import assume, given
from hypothesis import strategies as st

NONE = [
    ('The capital of France is called "', "Paris"),
    ('The 15" screen is called "', "Paris"),
    ('"', "Paris"),
    ("It is called '", "Paris"),
    ("It is called `", "paris"),
    ('name="', "Paris"),
    ("It is called “", "Paris"),
    ("Es heißt „", "Paris"),
    ("Es heißt ‚", "Paris"),
    ("Es heißt »", "Paris"),
    ("C'est «", "Paris"),
    ("Den heter ”", "Paris"),
    ('She said ("', "Paris"),
    ("The capital (", "Paris"),
    ("The capital [", "Paris"),
    ("The capital {", "Paris"),
    ("Its price is $", "20"),
    ("Its price is US$", "20"),
    ("Its price is (€", "20"),
    ("It is Franco-", "German"),
    ("From 1990–", "1995"),
    ("The city—", "Paris"),
    ("It goes km/", "h"),
    ("See https://", "example.org"),
    ("It was -", "5"),
    ("Follow @", "paris"),
    ("He is number #", "1"),
    ("The capital is **", "Paris"),
    ("The capital is <b>", "Paris"),
    ("¿", "París"),
    ("The capital is ", "Paris"),
    ("The capital is\n", "Paris"),
    ("The capital is", " Paris"),
    ("The capital is", ", of course"),
    ("The capital is Paris", "."),
    ("The capital is Paris", "?"),
    ("The capital (Paris", ")"),
    ("It is 20", "%"),
    ("It is the city", "'s"),
    ("It is the city", "’s mayor"),
    ('It is "the city', '" and'),
    ("It is “the city", "”"),
    ("Es ist „die Stadt", "“"),
    ("C'est «Paris", "»"),
    ("Jose", "\u0301"),
    ("中国的首都是", "北京"),
    ("中国的首都是:", "北京"),
    ("中国的首都是：", "Beijing"),
    ("法国的首都是", "Paris"),
    ("The capital（", "Paris"),
    ("The capital is", "「Paris」"),
    ("中国叫“", "北京"),
    ("日本の首都は", "東京"),
    ("このスマートフォンの会社がある国は USA", "米国"),
    ("เมืองหลวงของไทยคือ", "กรุงเทพ"),
    ("ເມືອງຫຼວງຂອງລາວແມ່ນ", "ວຽງຈັນ"),
    ("រាជធានីគឺ", "ភ្នំពេញ"),
    ("မြို့တော်မှာ", "နေပြည်တော်"),
    ("རྒྱལ་ས་ནི་", "ལྷ་ས"),
]
ONE = [
    ("The capital of France is", "Paris"),
    ('The capital of "France" is', "Paris"),
    ('It says "France"', "Paris"),
    ('The screen of 15"', "Paris"),
    ("It belongs to the teachers'", "union"),
    ("It belongs to the teachers’", "union"),
    ("It is called “France”", "Paris"),
    ("Es heißt „Frankreich“", "Paris"),
    ("C'est «la France»", "Paris"),
    ("Das ist »Frankreich«", "Paris"),
    ("The capital (of France)", "Paris"),
    ("The capital [1]", "Paris"),
    ("The capital:", "Paris"),
    ("The capital,", "Paris"),
    ("The capital is -", "Paris"),
    ("The capital is –", "Paris"),
    ("Paris /", "London"),
    ("Look in /", "usr"),
    ("Its price is 5 €", "today"),
    ("Its price is 5 €", "20"),
    ("The currency of France is the €", "sign"),
    ("Which city is it?", "Paris"),
    ("Which file is it?", ".bashrc"),
    ("Its version is", ".NET"),
    ("The capital is", '"Paris"'),
    ("The capital is", "“Paris”"),
    ("The capital is", "'Paris'"),
    ("The capital is", "(Paris)"),
    ("The capital is", "$5"),
    ("The capital is", "-5"),
    ("The capital **is**", "Paris"),
    ("The capital <b>is</b>", "Paris"),
    ("The capital in Chinese is", "北京"),
    ("The capital of 法国 is", "巴黎"),
    ("เมืองหลวงของฝรั่งเศสคือ", "Paris"),
    ("ปีนี้คือ", "2024"),
    ("대한민국의 수도는", "서울"),
    ("대한민국의 수도는", "首爾"),
    ("Столица Франции —", "Париж"),
    ("עיר הבירה היא", "פריז"),
    ("عاصمة فرنسا هي", "باريس"),
    ("भारत की राजधानी", "दिल्ली"),
    ("", "Paris"),
]


@pytest.mark.parametrize(("prompt", "target"), NONE)
def test_choose_separator_attached_characters_have_none(prompt: str, target: str) -> None:
    assert choose_separator(prompt, target) == ""


@pytest.mark.parametrize(("prompt", "target"), ONE)
def test_choose_separator_between_words_is_a_space(prompt: str, target: str) -> None:
    assert choose_separator(prompt, target) == " "


@pytest.mark.parametrize(("prompt", "target"), [*NONE, *ONE])
def test_choose_separator_space_of_the_request_decides(prompt: str, target: str) -> None:
    assert choose_separator(prompt, target, False) == ""
    brings = prompt[-1:].isspace() or target[:1].isspace()
    assert choose_separator(prompt, target, True) == ("" if brings else " ")


@given(prompt=st.text(max_size=20), target=st.text(max_size=20), space=st.sampled_from([None, True, False]))
def test_choose_separator_any_texts_have_at_most_one_space(prompt: str, target: str, space: bool | None) -> None:
    separator = choose_separator(prompt, target, space)
    assert separator in ("", " ")
    if prompt[-1:].isspace() or target[:1].isspace():
        assert separator == ""


WORD = st.from_regex(r"[A-Za-z]{1,8}", fullmatch=True)


@given(words=st.lists(WORD, min_size=1, max_size=6), target=WORD)
def test_choose_separator_plain_words_have_a_space(words: list[str], target: str) -> None:
    assert choose_separator(" ".join(words), target) == " "


@given(prompt=st.text(max_size=20), target=WORD, bracket=st.sampled_from("([{（「『【《〈«„“"))
def test_choose_separator_after_an_opening_bracket_is_empty(prompt: str, target: str, bracket: str) -> None:
    assume(not set(prompt) & set("„»«"))
    assert choose_separator(prompt + bracket, target) == ""


@given(
    words=st.lists(WORD, min_size=1, max_size=6),
    inner=WORD,
    target=WORD,
    quotes=st.sampled_from(['""', "“”", "„“", "«»", "»«", "‘’", "''"]),
)
def test_choose_separator_after_a_whole_quotation_is_a_space(
    words: list[str], inner: str, target: str, quotes: str
) -> None:
    assert choose_separator(f"{' '.join(words)} {quotes[0]}{inner}{quotes[1]}", target) == " "
    assert choose_separator(f"{' '.join(words)} {quotes[0]}", target) == ""


@given(st.text(alphabet="的首都是中国法巴黎カナ東京", min_size=1), st.text(alphabet="北京市巴黎トウabc12", min_size=1))
def test_choose_separator_after_chinese_or_japanese_is_empty(prompt: str, target: str) -> None:
    assert choose_separator(prompt, target) == ""
