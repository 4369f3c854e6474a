"""Names that a language model proposes. It reads a segment's profile, and its answer is a proposal: what cannot be a
name is dropped, and the profile names that segment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.columns import collapse
from erasmo_dagster.method.endpoints import endpoint_client
from erasmo_dagster.method.profiling import SegmentProfile, TableProfile, is_usable
from erasmo_dagster.settings import NOISE_NAME, NamingSettings

_INSTRUCTION = (
    "You name groups of rows of a table for analysts. Answer with one short name of two to five words, "
    "and nothing else."
)
_MOST_TRAITS = 5
_MOST_TOKENS = 24  # of an answer


def naming_prompt(segment: SegmentProfile) -> str:
    """What a model is told of a segment: its strongest traits, one a line. Nothing of any row, and no key."""
    traits = "\n".join(f"- {trait.description}" for trait in segment.traits[:_MOST_TRAITS])
    return f"A group of {segment.rows} rows is set apart by this:\n{traits}\nName of the group:"


def usable_names(answers: Mapping[int, str], taken: Mapping[int, str]) -> tuple[dict[int, str], list[str]]:
    """The answers that can be names, by segment id, and a remark on each that cannot.

    The first line counts, without quotes, markup or a ``Name:`` before it; a name that is taken is not usable.
    """
    used = {NOISE_NAME, *(name.casefold() for name in taken.values())}
    names, remarks = {}, []
    for segment_id, answer in sorted(answers.items()):
        name = _cleaned(answer)
        fault = is_usable(name) or ("it is taken" if name.casefold() in used else None)
        if fault is None:
            names[segment_id] = name
            used.add(name.casefold())
        else:
            remarks.append(f"the proposal for segment {segment_id} was not used: {fault}")
    return names, remarks


def _cleaned(answer: str) -> str:
    line = next((line for line in answer.strip().splitlines() if line.strip()), "")
    line = re.sub(r"^\W*name( of the group)?\s*:", "", collapse(line), flags=re.IGNORECASE)
    return line.strip(" \t\"'`“”‘’*_#.-:")


def to_name(profile: TableProfile, taken: Mapping[int, str]) -> list[SegmentProfile]:
    """The segments that have no name yet and something to be named by."""
    return [s for s in profile.segments if s.segment_id >= 0 and s.segment_id not in taken and s.traits]


def ask_endpoint(segments: Sequence[SegmentProfile], settings: NamingSettings) -> dict[int, str]:
    """Answers of an OpenAI-compatible endpoint (``/chat/completions``) by segment id, at temperature 0.

    Raises ErasmoError where the client is not installed, the key is not set or the endpoint does not answer.
    """
    client = endpoint_client(settings.url or "", settings.api_key_env, settings.timeout, max_retries=2)
    from openai import OpenAIError

    try:
        with client:
            return {segment.segment_id: _ask(client, settings.model or "", segment) for segment in segments}
    except (OpenAIError, AttributeError, TypeError, ValueError, LookupError) as error:
        # Not its text, which may repeat what was sent: the key among it.
        raise ErasmoError(
            f"Got {type(error).__name__} from the endpoint under naming.url", expected="an answer to a chat completion"
        ) from None


def _ask(client: Any, model: str, segment: SegmentProfile) -> str:
    answer = client.chat.completions.create(
        model=model,
        temperature=0,
        max_tokens=_MOST_TOKENS,
        messages=[
            {"role": "system", "content": _INSTRUCTION},
            {"role": "user", "content": naming_prompt(segment)},
        ],
    )
    content = answer.choices[0].message.content if answer.choices else ""
    return content if isinstance(content, str) else ""


def ask_base_model(segments: Sequence[SegmentProfile], base: LocalModel, *, device: str = "auto") -> dict[int, str]:
    """Answers of a causal language model by segment id, without chance (greedy); the base model, not fine-tuned.

    Raises ErasmoError as :func:`~erasmo_dagster.method.loading.load_model` does.
    """
    import torch

    from erasmo_dagster.method.loading import load_model

    loaded = load_model(base, None, device)
    answers = {}
    for segment in segments:
        prompt = _as_chat(loaded.tokenizer, naming_prompt(segment))
        tokens = loaded.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        ids = tokens["input_ids"][:, -(loaded.max_length - _MOST_TOKENS) :].to(loaded.device)
        with torch.inference_mode():
            written = loaded.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=_MOST_TOKENS,
                do_sample=False,
                pad_token_id=loaded.tokenizer.eos_token_id,
            )
        answers[segment.segment_id] = loaded.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    return answers


def _as_chat(tokenizer: Any, prompt: str) -> str:
    if not getattr(tokenizer, "chat_template", None):
        return f"{_INSTRUCTION}\n\n{prompt}"
    # In one turn of the user: some templates refuse a system's.
    messages = [{"role": "user", "content": f"{_INSTRUCTION}\n\n{prompt}"}]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text
