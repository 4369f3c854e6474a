"""Where sentences end, and which of them TextRank keeps."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasmo_dagster.method.summaries.sentences import count_words, join_sentences, split_sentences, words
from erasmo_dagster.method.summaries.textrank import MOST_SENTENCES, TextRankSummarizer, textrank

quick = settings(max_examples=100)
# Texts that are full of what the rules look at.
PIECES = [
    "Dr.",
    "J.",
    "e.g.",
    "3.14",
    "1.",
    "-",
    "«",
    "”",
    "(",
    ")",
    "...",
    "!",
    "?",
    "。",
    "\n",
    "\n\n",
    " ",
    "the",
    "A",
    "日本",
    "U.S.",
]
texts = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith met Mrs. Jones. They spoke.", ["Dr. Smith met Mrs. Jones.", "They spoke."]),
        ("J. R. R. Tolkien wrote it. So do I. And you?", ["J. R. R. Tolkien wrote it.", "So do I.", "And you?"]),
        ("It costs 3.50 or 1,200.75. Version 2.0 is out.", ["It costs 3.50 or 1,200.75.", "Version 2.0 is out."]),
        ("See Fig. 3 and no. 5, e.g. The one on Jan. 5.", ["See Fig. 3 and no. 5, e.g. The one on Jan. 5."]),
        ("In the U.S. Army they rise at 5 a.m. She stayed.", ["In the U.S. Army they rise at 5 a.m.", "She stayed."]),
        ('"Really?" she asked. "Yes." He left.', ['"Really?" she asked.', '"Yes."', "He left."]),
        ("It works (I think.) Next. “Done.” So", ["It works (I think.)", "Next.", "“Done.”", "So"]),
        ("Wait... what? Wait… Now! !", ["Wait... what?", "Wait…", "Now!", "!"]),
        ("We paid etc. and left. ok. fine", ["We paid etc. and left. ok. fine"]),
        ("1. First thing. 2. Second thing.", ["1. First thing.", "2. Second thing."]),
        ("See www.example.org/a.b today. Or not.", ["See www.example.org/a.b today.", "Or not."]),
        ("今日は天気がいい。「本当？」はい！行こう", ["今日は天気がいい。", "「本当？」", "はい！", "行こう"]),
        ("Todo:\n- milk, two\n* bread. And jam\n2) eggs", ["Todo:", "- milk, two", "* bread.", "And jam", "2) eggs"]),
        ("Called twice\nNo answer\r\nWill try again", ["Called twice", "No answer", "Will try again"]),
        ("Das kostet z.B. Geld, d.h. Euro. Vgl. Nr. 3.", ["Das kostet z.B. Geld, d.h. Euro.", "Vgl. Nr. 3."]),
        (
            "This line was wrapped by some mail program, at the words New\nYork, and goes on. Then it\nends.\n\nAnd more",
            [
                "This line was wrapped by some mail program, at the words New\nYork, and goes on.",
                "Then it\nends.",
                "And more",
            ],
        ),
        ("¿Qué? ¡Sí! ¿Por qué no? él", ["¿Qué?", "¡Sí!", "¿Por qué no? él"]),
        ("", []),
        (" \n\t ", []),
        ("...", ["..."]),
    ],
)
def test_sentences_end_where_they_do(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@quick
@given(texts)
def test_no_character_is_lost_and_no_sentence_is_empty(text: str) -> None:
    sentences = split_sentences(text)
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)
    assert re.sub(r"\s", "", "".join(sentences)) == re.sub(r"\s", "", text)
    assert len(join_sentences(sentences)) <= len(text)


def test_words_are_counted_in_any_script() -> None:
    assert count_words("Don't re-do it: 3.5 per cent, twice!") == 7
    assert count_words("天気がいい") == 5
    assert count_words("go to 東京 now") == 5
    assert count_words(" -- … ") == 0
    assert words("Don't GO to 東京") == ["don't", "go", "to", "東", "京"]


@pytest.mark.parametrize("piece", ["word ", "Dr. ", "x", "A.b", "Yes. ", "(", "e.g ", "\n", "。"])
def test_a_long_text_of_any_kind_is_split(piece: str) -> None:
    # 400 kB: what looked at the whole rest of the text at every full stop would not come to an end.
    text = piece * (400_000 // len(piece))
    assert re.sub(r"\s", "", "".join(split_sentences(text))) == re.sub(r"\s", "", text)


STORY = (
    "The dog chased the cat through the garden. It rained. The cat climbed a tree in the garden to flee from the dog. "
    "Lunch was late. The dog waited under the tree in the garden for the cat. My uncle sells umbrellas."
)


def test_the_sentences_that_are_like_the_others_are_kept_in_their_order() -> None:
    assert textrank(STORY, 3) == (
        "The dog chased the cat through the garden. The cat climbed a tree in the garden to flee from the dog. "
        "The dog waited under the tree in the garden for the cat."
    )


def test_ties_go_to_the_earlier_sentences() -> None:
    assert textrank("Same words here. Same words here. Same words here. Same words here.", 2) == (
        "Same words here. Same words here."
    )
    assert textrank("Apples grow. Cars drive. Birds sing. Rivers flow.", 2) == "Apples grow. Cars drive."
    assert textrank("! ! ? ? ... ...", 1) in "! ! ? ? ... ..."


def test_scripts_without_spaces_are_ranked_too() -> None:
    text = "犬が猫を庭で追いかけた。雨だ。猫は犬から庭の木に逃げた。犬は庭の木の下で猫を待った。昼食。"
    assert textrank(text, 2) == "猫は犬から庭の木に逃げた。犬は庭の木の下で猫を待った。"


@settings(max_examples=30)
@given(texts, st.integers(1, 2))
def test_a_summary_is_of_the_texts_own_sentences_and_never_longer(text: str, most: int) -> None:
    summary = textrank(text, most)
    split = split_sentences(text)
    assert len(summary) <= len(text)
    assert textrank(text, most) == summary
    if len(split) <= most:
        assert summary == text
        return
    assert any(join_sentences(list(kept)) == summary for kept in combinations(split, most))


def test_a_very_long_text_is_ranked_by_its_beginning() -> None:
    beginning = " ".join(f"Filler {i} says thing {i * 7} alone." for i in range(MOST_SENTENCES))
    after = " The end comes. The end comes. The end comes." * 50
    assert textrank(beginning + after, 2) == textrank(beginning, 2)


def test_the_summarizer_has_an_identity_of_what_it_does() -> None:
    three, four = TextRankSummarizer(3), TextRankSummarizer(4)
    assert three.identity == TextRankSummarizer(3).identity != four.identity
    assert three.summarize([STORY, "One."]) == [textrank(STORY, 3), "One."]
    assert three.fallbacks == 0
