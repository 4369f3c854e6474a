"""What a model is asked for a summary, and what of its answer can be one."""

from __future__ import annotations

import re

from erasmo_dagster.method.summaries.sentences import join_sentences, split_sentences, words

PROMPT_VERSION = 1  # raised where what is asked, or what is made of an answer, changes
_ASKED = (
    "Summarize the text below in at most {sentences}. Keep what sets it apart from other texts. Use its own "
    "language. Answer with the summary alone."
)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)
_OPENER = re.compile(r"^\W*(?:(?:here is|here's|this is)[^\n:]{0,60}:|(?:summary|the summary)\s*:)", re.IGNORECASE)
_ENDED = re.compile(r"[.!?…。！？｡．؟।][\"'”’»)\]}」』）】]*$")
_FEWEST_WORDS = 3
_LETTERS = 0.5  # share of an answer's characters that are letters, at least
_VARIED = 0.25  # share of different words in a long answer, at least


def instruction(sentences: int) -> str:
    """What a model is asked; the text follows."""
    return _ASKED.format(sentences="one sentence" if sentences == 1 else f"{sentences} sentences")


def most_tokens(sentences: int) -> int:
    """Tokens of an answer at most: ample for that many sentences."""
    return min(16 + 48 * sentences, 1024)


def usable_summary(answer: str, text: str, sentences: int) -> str | None:
    """The answer as a summary of at most ``sentences`` sentences, or None where it cannot be one.

    Thoughts, an opening line and a last sentence that was cut off are taken out. Empty answers, such of hardly any
    words or letters, such that repeat themselves, and such that are not shorter than the text are no summaries.
    """
    split = split_sentences(_OPENER.sub("", _THOUGHT.sub("", answer).strip()).strip(" \t\n\"'`“”*#"))
    if len(split) > 1 and not _ENDED.search(split[-1]):
        split.pop()
    summary = join_sentences([" ".join(sentence.split()) for sentence in split[:sentences]])
    found = words(summary)
    characters = [character for character in summary if not character.isspace()]
    readable = "\ufffd" not in summary and sum(map(str.isalpha, characters)) >= _LETTERS * len(characters)
    varied = len(found) < 20 or len(set(found)) >= _VARIED * len(found)
    fits = len(found) >= _FEWEST_WORDS and len(summary) < len(text)
    return summary if readable and varied and fits else None
