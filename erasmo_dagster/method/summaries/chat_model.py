"""Summaries that a chat model on this machine writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.loading import LoadedModel, load_model
from erasmo_dagster.method.summaries.answers import PROMPT_VERSION, instruction, most_tokens, usable_summary
from erasmo_dagster.method.summaries.base import identity_of
from erasmo_dagster.method.summaries.textrank import textrank

_BATCH = 8  # texts of like length that are answered side by side
_MOST_READ = 4096  # tokens of a text at most, whatever the model takes: memory grows with them
_FEWEST_READ = 32


class ChatModelSummarizer:
    """A causal language model, asked through its chat template, without chance (greedy).

    It is loaded at the first text. A text beyond what the model takes is cut at its end.
    """

    chunk = 2 * _BATCH

    def __init__(self, base: LocalModel, sentences: int, device: str = "auto") -> None:
        self.base, self.sentences, self.device = base, sentences, device
        self.fallbacks = 0

    @property
    def identity(self) -> str:
        """A digest of the weights, the question and the number of sentences."""
        return identity_of(
            by="base_model", revision=self.base.revision, sentences=self.sentences, prompt=PROMPT_VERSION
        )

    def summarize(self, texts: Sequence[str]) -> list[str]:
        """One summary a text; TextRank's where the model's answer cannot be used.

        Raises ErasmoError as :func:`~erasmo_dagster.method.loading.load_model` does, and for a model that takes too
        few tokens to ask it.
        """
        prompts = [self._prompt(text) for text in texts]
        answers = [""] * len(texts)
        order = sorted(range(len(texts)), key=lambda at: (len(prompts[at]), at))
        for start in range(0, len(order), _BATCH):
            group = order[start : start + _BATCH]
            for at, answer in zip(group, self._answers([prompts[at] for at in group]), strict=True):
                answers[at] = answer
        return [self._summary(answer, text) for answer, text in zip(answers, texts, strict=True)]

    def _summary(self, answer: str, text: str) -> str:
        summary = usable_summary(answer, text, self.sentences)
        if summary is None:
            self.fallbacks += 1
            return textrank(text, self.sentences)
        return summary

    @cached_property
    def _loaded(self) -> LoadedModel:
        return load_model(self.base, None, self.device)

    def _prompt(self, text: str) -> list[int]:
        """The question's tokens, the text within it cut to what is left of the model's."""
        tokenizer = self._loaded.tokenizer
        answer = most_tokens(self.sentences)
        room = min(self._loaded.max_length - answer, _MOST_READ) - len(self._as_chat(""))
        if room < _FEWEST_READ:
            raise ErasmoError(
                f"Got {self.base.name}, which takes {self._loaded.max_length} tokens",
                expected=f"room for a text beside a question and an answer of {answer} tokens",
                fix="take another text.summarize.model, or fewer text.summarize.sentences",
            )
        for _ in range(3):  # a cut text may have some tokens more when it is read again
            tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(tokens) <= room:
                break
            text = tokenizer.decode(tokens[: room - 8], skip_special_tokens=True)
        return self._as_chat(text)

    def _as_chat(self, text: str) -> list[int]:
        tokenizer = self._loaded.tokenizer
        asked = f"{instruction(self.sentences)}\n\n{text}"
        if getattr(tokenizer, "chat_template", None):
            # In one turn of the user: some templates refuse a system's.
            turns = [{"role": "user", "content": asked}]
            asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        else:
            asked += "\n\nSummary:"
        ids: list[int] = tokenizer(asked, add_special_tokens=False)["input_ids"]
        return ids

    def _answers(self, prompts: Sequence[list[int]]) -> list[str]:
        import torch

        model, tokenizer, device = self._loaded.model, self._loaded.tokenizer, self._loaded.device
        width = max(map(len, prompts))
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        # On the left: every answer begins where its question ends.
        ids = torch.tensor([[padding] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        generate: Any = model.generate
        with torch.inference_mode():
            written = generate(
                ids,
                attention_mask=mask,
                max_new_tokens=most_tokens(self.sentences),
                do_sample=False,
                pad_token_id=padding,
            )
        return [tokenizer.decode(row[width:], skip_special_tokens=True) for row in written]
