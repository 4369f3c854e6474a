"""Summaries that an OpenAI-compatible endpoint writes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from erasmo_dagster.method.endpoints import endpoint_client, with_retries
from erasmo_dagster.method.summaries.answers import PROMPT_VERSION, instruction, most_tokens, usable_summary
from erasmo_dagster.method.summaries.base import identity_of
from erasmo_dagster.method.summaries.textrank import textrank
from erasmo_dagster.settings import SummarizeSettings

_CONCURRENT = 4  # requests under way at once
_RETRIES = 4
_MOST_READ = 48_000  # characters of a text at most


class EndpointSummarizer:
    """A chat model behind ``/chat/completions``, at temperature 0; a text beyond 48,000 characters is cut.

    Only what is given to ``summarize`` is sent.
    """

    chunk = 8 * _CONCURRENT

    def __init__(self, settings: SummarizeSettings) -> None:
        self.settings = settings
        self.fallbacks = 0

    @property
    def identity(self) -> str:
        """A digest of the model's name, the question and the number of sentences; not of where the endpoint is."""
        return identity_of(
            by="endpoint", model=self.settings.model, sentences=self.settings.sentences, prompt=PROMPT_VERSION
        )

    def summarize(self, texts: Sequence[str]) -> list[str]:
        """One summary a text; TextRank's where the endpoint's answer cannot be used.

        Raises ErasmoError where the client is not installed, the key is not set, or the endpoint does not answer.
        """
        url, key = self.settings.url or "", self.settings.api_key_env
        with endpoint_client(url, key, self.settings.timeout) as client:

            def ask(text: str) -> Any:
                return with_retries(
                    lambda: client.chat.completions.create(
                        model=self.settings.model or "",
                        temperature=0,
                        max_tokens=most_tokens(self.settings.sentences),
                        messages=[
                            {"role": "system", "content": instruction(self.settings.sentences)},
                            {"role": "user", "content": text[:_MOST_READ]},
                        ],
                    ),
                    url=url,
                    api_key_env=key,
                    retries=_RETRIES,
                )

            pool = ThreadPoolExecutor(_CONCURRENT, thread_name_prefix="summaries")
            try:
                answers = list(pool.map(ask, texts))
            finally:
                pool.shutdown(cancel_futures=True)
        return [self._summary(_content(answer), text) for answer, text in zip(answers, texts, strict=True)]

    def _summary(self, answer: str, text: str) -> str:
        summary = usable_summary(answer, text, self.settings.sentences)
        if summary is None:
            self.fallbacks += 1
            return textrank(text, self.settings.sentences)
        return summary


def _content(answer: Any) -> str:
    """What a completion says; nothing where it is none, as the client checks little of what it gets."""
    try:
        content = answer.choices[0].message.content
    except (AttributeError, LookupError, TypeError):
        return ""
    return content if isinstance(content, str) else ""
