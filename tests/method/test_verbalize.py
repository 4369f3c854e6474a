import datetime as dt
import math
import re
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.digits import exact, write_digits
from erasmo_dagster.method.verbalize import verbalize_datetime, verbalize_digits, verbalize_number, verbalize_text
from erasmo_dagster.method.words import known_language, whole

LANGUAGES = ["en", "pt_BR", "de", "fr", "es", "ja"]
finite = st.floats(allow_nan=False, allow_infinity=False)
quick = settings(max_examples=150)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (-0.0, "zero"),
        (-41, "minus forty-one"),
        (1234567, "one million, two hundred and thirty-four thousand, five hundred and sixty-seven"),
        (2.0, "two"),
        (-0.5, "minus zero point five"),
        (12.05, "twelve point zero five"),
        (1 / 3, "zero point three three three three three three"),
        (12345678.9, "twelve million, three hundred and forty-five thousand, six hundred and seventy-nine"),
        (0.000012, "zero point zero zero zero zero one two"),
        (1.5e-7, "one point five times ten to the power of minus seven"),
        (10**18, "one quintillion"),
        (1e30, "one nonillion"),
        (10**40, "one times ten to the power of forty"),
        (Decimal("1.20"), "one point two"),
        (Decimal("0.12345678"), "zero point one two three four five six seven eight"),
        ("1.2e3", "one thousand, two hundred"),
    ],
)
def test_numbers_in_english(value, words):
    assert verbalize_number(value) == words


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("de", "minus zwölf Komma null fünf"),
        ("pt_BR", "menos doze vírgula zero cinco"),
        ("pt-br", "menos doze vírgula zero cinco"),
        ("fr", "moins douze virgule zéro cinq"),
        ("es", "menos doce punto cero cinco"),
        ("it", "meno dodici virgola zero cinque"),
        ("pl", "minus dwanaście przecinek zero pięć"),
        ("tr", "eksi oniki virgül sıfır beş"),
        ("ja", "マイナス十二点零五"),
        ("en_US", "minus twelve point zero five"),
    ],
)
def test_numbers_in_other_languages(language, words):
    assert verbalize_number(-12.05, language) == words


def test_every_language_tells_numbers_apart_and_ends():
    from num2words import CONVERTER_CLASSES

    numbers = [*range(130), 1100, 1101, 99_999, 1_045_583, 10**9, 10**15 - 1, 10**15, 10**16, 10**18, 10**18 + 1]
    numbers += [9_193_224_884_455_865, 9_832_435_583_089_271, 10**27, 10**32, 10**33, 10**36, 10**60]
    numbers += [-1, -100, 0.5, -0.5, 0.05, 1.5, 1e-9]
    for language in sorted(CONVERTER_CLASSES):
        words = [verbalize_number(number, language) for number in numbers]
        assert all(text.strip() for text in words), language
        assert len(set(words)) == len(numbers), language


@pytest.mark.parametrize(
    ("value", "unit", "language", "words"),
    [
        (12.5, "percent", "en", "twelve point five percent"),
        (12.5, "percent", "de", "zwölf Komma fünf Prozent"),
        (12.5, "percent", "hu", "tizenkettő egész öt %"),
        (70, "kg", "en", "seventy kg"),
        (12.5, "EUR", "en", "twelve euro, fifty cents"),
        (-30, "EUR", "en", "minus thirty euro"),
        (1, "USD", "en", "one dollar"),
        (1200.5, "EUR", "de", "eintausendzweihundert Euro und fünfzig Cent"),
        (2, "EUR", "fr", "deux euros"),
        (30.25, "BRL", "pt_BR", "trinta reais e vinte e cinco centavos"),
        (30, "EUR", "pt_BR", "trinta EUR"),
        (30, "JPY", "ja", "三十円"),
        (30, "EUR", "ar", "ثلاثون EUR"),
        (30, "XYZ", "en", "thirty XYZ"),
        (1.255, "EUR", "en", "one point two five five EUR"),
        (10**40, "EUR", "en", "one times ten to the power of forty EUR"),
    ],
)
def test_units(value, unit, language, words):
    assert verbalize_number(value, language, unit) == words


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("unit", ["EUR", "USD", "JPY", "BRL"])
def test_amounts_of_money_stay_distinct(language, unit):
    amounts = [Decimal(n) / 1000 for n in range(-2000, 2001, 5)]
    assert len({verbalize_number(amount, language, unit) for amount in amounts}) == len(amounts)


def test_unknown_language_names_the_known_ones():
    with pytest.raises(ErasmoError, match=r"Got language 'xx'.*one of: am, ar, .*en, .*pt_BR"):
        verbalize_number(1, "xx")
    assert known_language("PT-br") == "pt_BR"


@pytest.mark.parametrize("value", [math.nan, math.inf, Decimal("nan"), "", "twelve", "1,200", "inf"])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="not a"):
        verbalize_number(value)


@quick
@given(finite | st.integers(-(10**60), 10**60) | st.decimals(allow_nan=False, allow_infinity=False))
def test_any_finite_number_has_english_words_without_digits(value):
    words = verbalize_number(value)
    assert words
    assert not re.search(r"\d", words)
    assert words == " ".join(words.split())


@quick
@given(st.sampled_from(LANGUAGES), finite | st.integers(-(10**60), 10**60))
def test_any_finite_number_has_words_in_every_tested_language(language, value):
    assert verbalize_number(value, language, "EUR")
    assert verbalize_number(value, language)


@quick
@given(
    st.sampled_from([*LANGUAGES, "am"]),
    st.lists(st.integers(-(10**39), 10**39) | st.decimals(-(10**9), 10**9, places=8) | st.none(), min_size=1),
)
def test_columns_of_digits_have_the_words_of_each_number(language, numbers):
    digits = [None if number is None else write_digits(number, 6) for number in numbers]
    for number, words in zip(numbers, verbalize_digits(pl.Series(digits, dtype=pl.String), language), strict=True):
        assert words in (None, verbalize_number(number or 0, language))
        if number is not None and (number == 0 or 1e-6 <= abs(number) < 1000):
            assert words is not None


@quick
@given(st.sampled_from(LANGUAGES), st.sets(st.integers(-(10**40), 10**40) | finite, min_size=2, max_size=8))
def test_distinct_numbers_have_distinct_words(language, numbers):
    kept = {exact(number, 6) for number in numbers}
    assert len({verbalize_number(number, language) for number in numbers}) == len(kept)


@quick
@given(finite)
def test_seventeen_digits_lose_nothing(value):
    assert float(write_digits(value, 17)) == value


@quick
@given(finite, st.integers(0, 17))
def test_rounding_keeps_significant_digits_and_units(value, decimals):
    error = abs(Decimal(write_digits(value, decimals)) - Decimal(repr(value)))
    assert error <= Decimal("0.5") or error <= abs(Decimal(repr(value))) * Decimal(10) ** (1 - max(decimals, 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("25% off", "twenty-five percent off"),
        ("-2.5 %", "minus two point five percent"),
        ("$1,200.50 net", "one thousand, two hundred dollars, fifty cents net"),
        ("-$5 or $-5", "minus five dollars or minus five dollars"),
        ("€30, 30 EUR, 30€.", "thirty euro, thirty euro, thirty euro."),
        ("1,200 and 1,234,567.8", "one thousand, two hundred and one million, two hundred and thirty-four thousand, "
         "five hundred and sixty-seven point eight"),
        ("1.2e-5 m", "zero point zero zero zero zero one two m"),
        ("(-3) at −7", "(minus three) at minus seven"),
        ("10kg in 3D", "ten kg in three D"),
        ("20-30 or 24/7", "twenty - thirty or twenty-four / seven"),
        ("covid-19", "covid-nineteen"),
        ("5'8 tall", "five ' eight tall"),
        ("rooms 3,5,7.", "rooms three,five,seven."),
        ("agent 007", "agent zero zero seven"),
        ("on 2021-03-04 at 12:30", "on the fourth of March twenty twenty-one at twelve hours thirty minutes"),
        ("mp3 A4 2nd 1.2.3 192.168.0.1 col_1 1a2b", "mp3 A4 2nd 1.2.3 192.168.0.1 col_1 1a2b"),
        ("no numbers, no change", "no numbers, no change"),
        ("", ""),
    ],
)  # fmt: skip
def test_numbers_inside_text(text, words):
    assert verbalize_text(text, "en") == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1.200,50 €", "eintausendzweihundert Euro und fünfzig Cent"),
        ("1,200.50", "eintausendzweihundert Komma fünf"),
        ("1.200", "eintausendzweihundert"),
        ("3,5 und 3.5", "drei Komma fünf und drei Komma fünf"),
        ("25 %", "fünfundzwanzig Prozent"),
    ],
)
def test_decimal_commas_are_read_in_languages_that_write_them(text, words):
    assert verbalize_text(text, "de") == words


@quick
@given(st.text(alphabet="019,.-+eE%$€:/T Zax", max_size=40), st.sampled_from(LANGUAGES))
def test_any_text_can_be_put_in_words(text, language):
    said = verbalize_text(text, language)
    assert verbalize_text(said, language) == said or re.search(r"\d", said)


@quick
@given(st.integers(-(10**12), 10**12), st.sampled_from(LANGUAGES))
def test_a_number_in_a_sentence_reads_as_it_does_alone(number, language):
    alone = verbalize_number(number, language)
    assert verbalize_text(f"it was {number} then", language) == f"it was {alone} then"


def test_long_texts_take_no_long_time():
    texts = ["7 " * 50_000, "word " * 20_000, "1" * 20_000, "1,111" * 10_000, "1-" * 50_000, "1" * 50_000 + "a1"]
    for text in texts:
        assert len(verbalize_text(text, "en")) >= len(text)


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (dt.date(2021, 3, 4), "the fourth of March twenty twenty-one"),
        (dt.date(1, 1, 1), "the first of January one"),
        ("-0768-02-04", "the fourth of February minus seven sixty-eight"),
        ("+18397-06-11", "the eleventh of June eighteen thousand, three hundred and ninety-seven"),
        (dt.time(14, 30), "fourteen hours thirty minutes"),
        (dt.time(1, 1, 1), "one hour one minute one second"),
        (
            dt.datetime(1850, 5, 6, 0, 2, 3, 500_000, tzinfo=dt.timezone(-dt.timedelta(minutes=90))),
            "the sixth of May eighteen fifty at zero hours two minutes three point five seconds "
            "UTC minus one hour thirty minutes",
        ),
        ("2021-03-04T00:00:00Z", "the fourth of March twenty twenty-one at zero hours zero minutes UTC"),
        ("spring 2021", "spring two thousand and twenty-one"),
    ],
)
def test_dates_and_times_in_english(moment, words):
    assert verbalize_datetime(moment) == words


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("de", "zweitausendeinundzwanzig drei vier vierzehn dreißig"),
        ("ja", "二千二十一 三 四 十四 三十"),
        ("sv", "tvåtusentjugoett tre fyra fjorton trettio"),
    ],
)
def test_dates_in_other_languages_are_their_parts(language, words):
    assert verbalize_datetime(dt.datetime(2021, 3, 4, 14, 30), language) == words


@quick
@given(st.sets(st.datetimes(), min_size=2, max_size=6), st.sampled_from(LANGUAGES))
def test_distinct_moments_have_distinct_words(moments, language):
    words = {verbalize_datetime(moment, language) for moment in moments}
    assert len(words) == len(moments)
    assert not any(re.search(r"\d", text) for text in words)


def test_whole_numbers_that_a_language_lacks_have_no_words():
    assert whole(10**33, "en") is None
    assert whole(10**10, "en_IN") is None
