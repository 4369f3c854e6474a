import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasmo_dagster.method.profiling import (
    NAME_LENGTH,
    SegmentProfile,
    TableProfile,
    Trait,
    is_usable,
    propose_names,
)
from erasmo_dagster.method.profiling.phrases import phrase

quick = settings(max_examples=100)


def trait(label="income", kind="number", value=None, strength=0.5, column=None):
    return Trait(
        segment_id=0,
        column=column or label,
        label=label,
        kind=kind,
        value=value,
        in_segment=0.5,
        in_rest=0.1,
        effect=1.0,
        effect_kind="lift",
        strength=strength,
        column_association=abs(strength),
        description="",
    )


def table(*traits_of, first=0):
    return TableProfile(
        tuple(
            SegmentProfile(
                segment_id=number, rows=3, share=0.1, traits=tuple(traits), rule=None, typical={}, summary=""
            )
            for number, traits in enumerate(traits_of, start=first)
        )
    )


def name(*traits):
    return propose_names(table(traits), {})[0]


@pytest.mark.parametrize(
    ("label", "more", "less"),
    [
        ("bill length", "long bill", "short bill"),
        ("flipper_length_mm".replace("_", " "), "long flipper", "short flipper"),
        ("bill depth", "deep bill", "shallow bill"),
        ("body mass", "heavy body", "light body"),
        ("age", "older", "younger"),
        ("age years", "older", "younger"),
        ("height", "tall", "short"),
        ("price", "expensive", "cheap"),
        ("unit price", "high unit price", "low unit price"),
        ("water temperature", "hot water", "cold water"),
        ("call duration", "long call", "short call"),
        ("number of orders", "many orders", "few orders"),
        ("orders count", "many orders", "few orders"),
        ("feedback count", "high feedback count", "low feedback count"),
        ("days since last order", "many days since last order", "few days since last order"),
        ("income", "high income", "low income"),
        ("mm", "high mm", "low mm"),
        ("count", "high count", "low count"),
    ],
)
def test_numbers_become_adjectives(label, more, less):
    assert phrase(trait(label, strength=0.4)) == more
    assert phrase(trait(label, strength=-0.4)) == less


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("island", "Biscoe", "Biscoe island"),
        ("cluster", "3", "cluster 3"),
        ("cluster", "-3", "cluster -3"),
        ("smoker", "yes", "smoker"),
        ("housing loan", "no", "no housing loan"),
        ("recommended", "no", "not recommended"),
        ("sex", "male", "male"),
        ("Department Name", "Dresses", "Dresses Department"),
        ("job", "manual jobs", "manual jobs"),
        ("stadt", "Ärzteviertel", "Ärzteviertel stadt"),
    ],
)
def test_values_stand_before_or_after_their_label(label, value, said):
    assert phrase(trait(label, "category", value)) == said


def test_other_kinds_have_words_too():
    assert phrase(trait("income", "missing")) == "missing income"
    assert phrase(trait("income", "missing", strength=-0.5)) == "known income"
    assert phrase(trait("note", "term", "refund")) == "“refund”"
    assert phrase(trait("signup", "moment")) == "late signup"


def test_a_name_is_one_or_two_traits_of_different_columns():
    long, deep = trait("bill length", strength=0.8), trait("bill depth", strength=0.7)
    biscoe = trait("island", "category", "Biscoe", 0.6)
    dream = trait("island", "category", "Dream", 0.55)
    assert name(long, deep) == "long bill, deep bill"
    assert name(biscoe, dream, deep) == "Biscoe island, deep bill"
    assert name(biscoe) == "Biscoe island"
    assert name(biscoe, trait("age", strength=0.15)) == "Biscoe island"
    assert name(trait("a", "missing"), trait("b", "missing", strength=0.4)) == "missing a and b"


def test_a_second_trait_that_repeats_a_word_is_not_said():
    department, kind = trait("department", "category", "Dresses", 0.9), trait("class", "category", "Dresses", 0.89)
    assert name(department, kind, trait("age", strength=0.5)) == "Dresses department, older"
    assert name(trait("a", "category", "yes"), trait("b", "category", "yes")) == "a, b"


def test_noise_and_segments_without_traits_have_plain_names():
    assert propose_names(table([], [], first=-1), {}) == {-1: "noise", 0: "segment 0"}
    assert propose_names(table([trait("noise", "category", "yes")]), {})[0].casefold() != "noise"


def test_names_that_are_taken_stay_and_are_nobody_elses():
    traits = [trait("income"), trait("age", strength=0.4)]
    names = propose_names(table(traits, traits), {0: "My Own", 9: "HIGH INCOME, OLDER"})
    assert names[0] == "My Own"
    assert names[1] != "high income, older"
    assert names[1].startswith("high income")
    assert set(names) == {0, 1}


def test_alike_segments_are_told_apart_by_a_third_trait_and_then_by_a_number():
    traits = [trait("income"), trait("age", strength=0.45), trait("price", strength=0.4)]
    assert list(propose_names(table(traits[:2], traits, traits[:2], traits[:2]), {}).values()) == [
        "high income, older",
        "high income, older, expensive",
        "high income, older (2)",
        "high income, older (3)",
    ]


def test_the_same_profile_has_the_same_names():
    profile = table(*[[trait("income"), trait("job", "category", f"v{i % 2}", 0.4)] for i in range(6)])
    assert propose_names(profile, {}) == propose_names(profile, {})


def test_long_and_hostile_labels_and_values_fit():
    wild = "x\n\x00\x1b[0m\u202e " * 1000
    parts = [
        trait(wild + "length", column="a"),
        trait(wild, "category", "v " + wild, column="b", strength=0.4),
        trait(wild, "term", wild, column="c", strength=0.4),
        trait(wild, "missing", column="d", strength=0.4),
    ]
    for traits in (parts, parts[1:], parts[2:], parts[3:], [parts[3], parts[3]]):
        for made in propose_names(table(traits, traits, traits, traits, traits, traits), {}).values():
            assert is_usable(made) is None
            assert made.isprintable()


@quick
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.text(max_size=70),
                st.sampled_from(["number", "moment", "category", "missing", "term"]),
                st.text(max_size=90),
                st.floats(0.1, 1),
                st.booleans(),
            ),
            max_size=6,
        ),
        min_size=1,
        max_size=8,
    ),
    st.dictionaries(st.integers(-1, 12), st.sampled_from(["high x", "Segment 1", "noise", "b"]), max_size=3),
)
def test_names_are_unique_short_and_on_one_line(made, taken):
    profile = table(
        *[
            [
                trait(label, kind, value if kind in ("category", "term") else None, -power if down else power)
                for label, kind, value, power, down in traits
            ]
            for traits in made
        ]
    )
    names = propose_names(profile, taken)
    assert list(names) == [segment.segment_id for segment in profile.segments]
    fresh = [given_name for number, given_name in names.items() if number not in taken]
    assert all(is_usable(one) is None for one in fresh)
    held = [given_name.casefold() for given_name in taken.values()]
    assert len({one.casefold() for one in fresh}) == len(fresh)
    assert not {one.casefold() for one in fresh} & set(held)
    assert all(names[number] == taken[number] for number in names if number in taken)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("x" * (NAME_LENGTH + 1), "61 characters"),
        ("a\nb", "one line"),
        ("a\u2028b", "one line"),
        ("a\x07b", "control"),
        ("a\tb", "control"),
        ("a\x9bb", "control"),
    ],
)
def test_what_cannot_be_a_name_is_said_with_a_reason(bad, reason):
    assert re.search(reason, is_usable(bad) or "")


@pytest.mark.parametrize("good", ["Big spenders", "x" * NAME_LENGTH, "Größe, “Rückgabe”", "大口顧客"])
def test_what_can_be_a_name_has_no_reason(good):
    assert is_usable(good) is None
