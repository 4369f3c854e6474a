"""The encoder that asks an OpenAI-compatible endpoint for its vectors."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.encoders.base import Batch, assembled
from erasmo_dagster.method.endpoints import endpoint_client, endpoint_key, shown_url, with_retries
from erasmo_dagster.settings import OpenAIOptions

if TYPE_CHECKING:
    from openai import OpenAI

# UTF-8 bytes counted as one token. Tables and English prose have 3.5 to 4.5 a token in OpenAI's vocabularies.
BYTES_A_TOKEN = 3
_POLL = 0.5  # seconds: where a signal does not wake a waiting thread, Ctrl-C is heeded as late as that


class OpenAIEncoder:
    """Vectors of ``/embeddings``, float32 as they came: OpenAI, vLLM, Ollama, TEI and others.

    Several requests are under way at once, each within ``batch_texts`` and ``batch_tokens``. Tokens are counted
    roughly, three bytes each, as the endpoint's tokenizer is not at hand; a text longer than ``max_tokens`` is cut. An
    empty text, which OpenAI refuses, is sent as one space.

    After ``encode`` or ``batches``, ``truncated`` tells for each text whether it was cut, and ``tokens`` is what the
    endpoint counted itself (0 where it does not tell).

    Raises ErasmoError where the package openai is not installed or the key is not set. ``pause`` waits between two
    tries of a request, given in seconds.
    """

    def __init__(self, options: OpenAIOptions, *, pause: Callable[[float], bool | None] | None = None) -> None:
        self.options = options
        self.truncated = np.zeros(0, dtype=bool)
        self.tokens = 0
        self._pause = pause
        self._width: int | None = options.dimensions
        endpoint_key(options.url, options.api_key_env)  # a missing one is told of before any text is made

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 vector a text: [n, d]. Raises ErasmoError as :meth:`batches` does."""
        return assembled(len(texts), self.batches(texts))

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """As ``encode``, answer by answer as they come.

        When a request fails for good, those under way are waited for and given first. Raises ErasmoError where the
        endpoint refuses a request, does not answer, or answers other than one finite vector a text, all of the same
        dimensions. Left early (Ctrl-C), it sends nothing more.
        """
        sent, groups = self._prepared(texts)
        self.tokens = 0
        stop = threading.Event()
        todo, done = SimpleQueue[list[int]](), SimpleQueue[_Done | None]()
        for group in groups:
            todo.put(group)
        fault: Exception | None = None
        with self._client() as client, progress.bar("embedding", len(texts), "texts") as shown:
            # Of a pool's threads Python would wait for the answers before it ends, after Ctrl-C too.
            running = min(self.options.concurrency, len(groups))
            for _ in range(running):
                Thread(target=self._work, args=(client, sent, todo, done, stop), daemon=True).start()
            try:
                while running:
                    try:
                        came = done.get(timeout=_POLL)
                    except Empty:
                        continue
                    if came is None:
                        running -= 1
                    elif came.fault is None and (other := self._other_width(came.vectors)) is None:
                        self.tokens += came.tokens
                        shown.update(len(came.group))
                        yield np.asarray(came.group, dtype=np.intp), came.vectors
                    else:
                        fault = fault or came.fault or other
                        stop.set()
            finally:
                stop.set()
        if fault is not None:
            raise fault

    def _work(
        self,
        client: OpenAI,
        sent: Sequence[str],
        todo: SimpleQueue[list[int]],
        done: SimpleQueue[_Done | None],
        stop: threading.Event,
    ) -> None:
        """What each thread does: one request after another until none is left."""
        try:
            while not stop.is_set():
                group = todo.get_nowait()
                try:
                    vectors, tokens = self._ask(client, [sent[i] for i in group], stop)
                    done.put(_Done(group, vectors, tokens))
                except Exception as error:
                    done.put(_Done(group, fault=error))
        except Empty:
            pass
        finally:
            done.put(None)

    def _client(self) -> OpenAI:
        return endpoint_client(self.options.url, self.options.api_key_env, self.options.timeout)

    def _prepared(self, texts: Sequence[str]) -> tuple[list[str], list[list[int]]]:
        """The texts as they are sent, and their positions in groups, one a request."""
        longest = self.options.max_tokens * BYTES_A_TOKEN
        sent, groups, room = [], list[list[int]](), 0
        self.truncated = np.zeros(len(texts), dtype=bool)
        for i, text in enumerate(texts):
            data = text.encode()
            if len(data) > longest:
                self.truncated[i] = True
                data = data[:longest]
            sent.append(data.decode(errors="ignore") or " ")  # half a character is left out
            if not groups or len(groups[-1]) == self.options.batch_texts or room < len(data):
                groups.append([])
                room = self.options.batch_tokens * BYTES_A_TOKEN
            groups[-1].append(i)
            room -= len(data)
        return sent, groups

    def _ask(self, client: OpenAI, texts: list[str], stop: threading.Event) -> tuple[np.ndarray, int]:
        """Vectors [n, d] of one request, and the tokens that the endpoint counted. Runs in a thread of its own."""
        from openai import omit

        def request() -> bytes:
            raw = client.embeddings.with_raw_response.create(
                model=self.options.model,
                input=texts,
                dimensions=self.options.dimensions or omit,
                encoding_format="base64",
            )
            return bytes(raw.http_response.content)

        def pause(seconds: float) -> bool:
            return bool((self._pause or stop.wait)(seconds)) or stop.is_set()

        body = with_retries(
            request,
            url=self.options.url,
            api_key_env=self.options.api_key_env,
            retries=self.options.retries,
            pause=pause,
        )
        try:
            return _read(body, len(texts))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ErasmoError(
                f"Got {error if isinstance(error, _UnusableError) else 'an answer that cannot be read'} "
                f"from the endpoint {shown_url(self.options.url)}",
                expected="one vector of finite numbers a text, as OpenAI's /embeddings gives",
                fix="check `url`, which ends in /v1 as a rule, and `model`",
            ) from None

    def _other_width(self, vectors: np.ndarray) -> ErasmoError | None:
        """The fault of vectors that have other dimensions than those asked for, or than the first that came."""
        width = vectors.shape[1]
        self._width = self._width or width
        if width == self._width:
            return None
        where = f"the endpoint {shown_url(self.options.url)}"
        if self.options.dimensions is not None:
            return ErasmoError(
                f"Got {width} dimensions from {where}",
                expected=f"{self._width}, as `encoder.dimensions` asks",
                fix="leave it out, as the model cannot shorten its vectors",
            )
        return ErasmoError(
            f"Got {width} dimensions from {where}",
            expected=f"{self._width}, as it answered before",
            fix="see which model it answers with",
        )


@dataclass(frozen=True)
class _Done:
    """What came of one request."""

    group: list[int]  # positions of its texts
    vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    tokens: int = 0
    fault: Exception | None = None


class _UnusableError(ValueError):
    """What an answer has instead of vectors."""


def _read(body: bytes, texts: int) -> tuple[np.ndarray, int]:
    """Vectors float32 [texts, d] of an answer's JSON, in the order of their indices, and the tokens it counted.

    Raises ValueError, TypeError, LookupError or AttributeError for anything else.
    """
    try:
        answer: Any = json.loads(body)
    except ValueError:
        raise _UnusableError("an answer that is not JSON") from None
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not data:
        raise _UnusableError("an answer without vectors")
    if len(data) != texts:
        raise _UnusableError(f"{len(data)} vectors for {texts} texts")
    if sorted(item.get("index", i) for i, item in enumerate(data)) != list(range(texts)):
        raise _UnusableError("vectors whose indices are not those of the texts")
    found: list[np.ndarray] = [np.zeros(0)] * texts
    for i, item in enumerate(data):
        found[item.get("index", i)] = _vector(item["embedding"])
    widths = sorted({vector.shape for vector in found})
    if len(widths) > 1:
        raise _UnusableError(f"vectors of {' and '.join(str(shape[0]) for shape in widths)} dimensions")
    vectors = np.stack(found)
    if vectors.shape[1] == 0:
        raise _UnusableError("vectors without numbers")
    if not np.isfinite(vectors).all():
        raise _UnusableError("vectors with NaN or infinity in them")
    tokens = (answer.get("usage") or {}).get("prompt_tokens")
    return vectors, tokens if isinstance(tokens, int) else 0


def _vector(embedding: Any) -> np.ndarray:
    """Float32 [d] from base64, little-endian as OpenAI sends it, or from numbers, where an endpoint knows no base64."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
    with np.errstate(over="ignore"):  # becomes infinite and is refused
        vector = np.asarray(embedding, dtype=np.float32)
    if vector.ndim != 1:
        raise _UnusableError("vectors that are not lists of numbers")
    return vector
