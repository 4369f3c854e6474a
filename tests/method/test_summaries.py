"""Who summarizes which texts: settings, answers that cannot be summaries, a chat model, an endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel, resolve
from erasmo_dagster.method.summaries import (
    TextRankSummarizer,
    long_texts,
    open_summarizer,
    stays_here,
    summarized_columns,
    textrank,
)
from erasmo_dagster.method.summaries.answers import instruction, usable_summary
from erasmo_dagster.method.summaries.chat_model import ChatModelSummarizer
from erasmo_dagster.method.summaries.endpoint import EndpointSummarizer
from erasmo_dagster.method.textual import fit_text
from erasmo_dagster.settings import DEFAULT_MODEL, DatasetSettings, SummarizeSettings, TextSettings
from tests.tiny_models import tiny_causal_lm

KEY = "sk-very-secret"
TEXT = (
    "The dog chased the cat through the garden. It rained. The cat climbed a tree in the garden to flee from the dog. "
    "Lunch was late. The dog waited under the tree in the garden for the cat. My uncle sells umbrellas."
)
HERE = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "lsa"}, "'textrank', 'base_model' or 'endpoint'"),
        ({}, "by"),
        (
            {"by": "textrank", "model": "x"},
            "`by: textrank` has no option `model`, its options: columns, sentences, longer_than",
        ),
        ({"by": "textrank", "device": "cpu"}, "`by: textrank` has no option `device`"),
        (
            {"by": "base_model", "url": HERE},
            "has no option `url`, its options: columns, sentences, longer_than, device, model",
        ),
        ({"by": "base_model", "model": "gpt-4"}, "got model 'gpt-4', expected"),
        ({"by": "endpoint", "url": HERE}, "needs `url` and `model`"),
        ({"by": "endpoint", "model": "m"}, "needs `url` and `model`"),
        ({"by": "endpoint", "model": "m", "url": HERE, "device": "cpu"}, "has no option `device`"),
        ({"by": "endpoint", "model": "m", "url": "https://api.example.org/v1"}, "expected `allow_remote: true`"),
        ({"by": "textrank", "sentences": 0}, "sentences"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        SummarizeSettings.model_validate(options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"by": "textrank", "columns": "note"},
        {"by": "base_model", "device": "cpu"},
        {"by": "endpoint", "model": "m", "url": "https://api.example.org/v1", "allow_remote": True, "timeout": 5},
    ],
)
def test_settings_read_back_as_they_were_and_their_place_decides_nothing(options: dict[str, Any]) -> None:
    settings = TextSettings.model_validate({"summarize": options})
    assert TextSettings.model_validate_json(settings.model_dump_json()) == settings
    assert settings.deciding() != TextSettings().deciding()
    assert not {"url", "api_key_env", "allow_remote", "timeout", "device"} & set(settings.deciding()["summarize"])
    # A dataset without summaries is fitted as by releases that had none.
    assert "summarize" not in TextSettings().deciding()
    assert settings.deciding()["summarize"]["model"] == {"base_model": DEFAULT_MODEL, "endpoint": "m"}.get(
        options["by"]
    )


def table() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [1, 2, 3],
            "age": [1, 2, 3],
            "note": [TEXT, "one two three four five six", None],
            "title": ["Dog and cat", "Numbers", "Nothing"],
            "iban": [TEXT + " It is secret.", "a", "b"],
            "same": ["x", "x", "x"],
        }
    )


def dataset(**options: Any) -> DatasetSettings:
    return DatasetSettings.model_validate({"source": {"path": "x"}, "key": "id", **options})


def test_texts_are_the_columns_unless_others_are_named() -> None:
    plan = fit_text(table(), dataset())
    assert summarized_columns(table(), plan, SummarizeSettings(by="textrank")) == ["iban", "note"]
    named = SummarizeSettings(by="textrank", columns=("title", "note", "same"))
    assert set(summarized_columns(table(), plan, named)) == {"title", "note"}
    for wrong in ("age", "id", "nothing"):
        with pytest.raises(ErasmoError, match=f"text.summarize.columns with '{wrong}'"):
            summarized_columns(table(), plan, SummarizeSettings(by="textrank", columns=(wrong,)))


def test_long_texts_are_those_of_more_words() -> None:
    texts = pl.Series(["one two three", "one two", None, "one two three", "", "三つの字あ"])
    assert long_texts(texts, SummarizeSettings(by="textrank", longer_than=2)) == ["one two three", "三つの字あ"]
    assert long_texts(texts, SummarizeSettings(by="textrank", longer_than=5)) == []


def test_sensitive_columns_are_for_no_endpoint() -> None:
    endpoint = SummarizeSettings(by="endpoint", model="m", url=HERE)
    assert stays_here("iban", endpoint, {"iban"})
    assert not stays_here("note", endpoint, {"iban"})
    assert not stays_here("iban", SummarizeSettings(by="base_model"), {"iban"})


@pytest.mark.parametrize(
    ("answer", "summary"),
    [
        ("A dog chased a cat. It fled.", "A dog chased a cat. It fled."),
        ("Here is a summary of the text:\n\nA dog chased a cat. It fled.", "A dog chased a cat. It fled."),
        ("**Summary:** A dog chased a cat.", "A dog chased a cat."),
        ("<think>Dogs.\nCats?</think>\nA dog chased a cat.", "A dog chased a cat."),
        ("A dog chased a cat. It fled. It rained. It", "A dog chased a cat. It fled."),
        ("A dog chased a cat. It fled up a", "A dog chased a cat."),
        ("A dog chased\na cat without end", "A dog chased a cat without end"),
        ("", None),
        ("<think>I never come to an", None),
        ("Dog.", None),
        ("1 2 3 4 5 6 7 8 9", None),
        ("A d\ufffdg chased a cat.", None),
        ("the dog " * 20, None),
        (TEXT, "The dog chased the cat through the garden. It rained."),
        ("A cat and a dog and " * 10, None),
    ],
)
def test_what_of_an_answer_can_be_a_summary(answer: str, summary: str | None) -> None:
    assert usable_summary(answer, TEXT, 2) == summary


def test_an_answer_as_long_as_the_text_is_none() -> None:
    assert usable_summary("A dog chased a cat.", "Dog chased cat now", 2) is None


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A tiny random model with a chat template; it babbles."""
    folder = tiny_causal_lm(tmp_path_factory.mktemp("chat") / "tiny")
    config = folder / "tokenizer_config.json"
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": template}))
    return resolve(f"path:{folder}", folder.parent)


def test_a_chat_model_is_asked_by_its_template_and_what_it_babbles_is_textranks(chat: LocalModel) -> None:
    summarizer = ChatModelSummarizer(chat, 1, "cpu")
    asked = summarizer._loaded.tokenizer.decode(summarizer._prompt(TEXT))
    assert asked == f"[user] {instruction(1)}\n\n{TEXT} [assistant]"
    long = TEXT * 20
    cut = summarizer._prompt(long)
    assert len(cut) + 16 + 48 <= summarizer._loaded.max_length
    assert summarizer._loaded.tokenizer.decode(cut).endswith("[assistant]")
    texts = [TEXT, long, TEXT + " And more."]
    first = summarizer.summarize(texts)
    assert first == ChatModelSummarizer(chat, 1, "cpu").summarize(texts)
    assert all(len(summary) < len(text) for summary, text in zip(first, texts, strict=True))
    babbled = [answer for answer in summarizer._answers([summarizer._prompt(text) for text in texts]) if answer]
    assert babbled
    of_textrank = [textrank(text, 1) for text in texts]
    assert sum(a == b for a, b in zip(first, of_textrank, strict=True)) == summarizer.fallbacks


def test_answers_side_by_side_are_those_of_one_by_one(chat: LocalModel) -> None:
    summarizer = ChatModelSummarizer(chat, 1, "cpu")
    prompts = [summarizer._prompt(text) for text in (TEXT, "A short one.", TEXT[:90])]
    assert summarizer._answers(prompts) == [summarizer._answers([prompt])[0] for prompt in prompts]


def test_an_answer_that_is_a_summary_is_kept(chat: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    summarizer = ChatModelSummarizer(chat, 2, "cpu")
    monkeypatch.setattr(summarizer, "_answers", lambda prompts: [f"A text of {len(p)} tokens." for p in prompts])
    texts = [TEXT, TEXT[:90]]
    assert summarizer.summarize(texts) == [f"A text of {len(summarizer._prompt(text))} tokens." for text in texts]
    assert summarizer.fallbacks == 0


def test_a_model_that_takes_too_few_tokens_is_refused(chat: LocalModel) -> None:
    with pytest.raises(ErasmoError, match="which takes 512 tokens, expected room for a text"):
        ChatModelSummarizer(chat, 10, "cpu").summarize([TEXT])


def test_identities_differ_where_summaries_may(chat: LocalModel) -> None:
    other = LocalModel("path:other", Path("other"), "another revision")
    endpoint = SummarizeSettings(by="endpoint", model="m", url=HERE)
    identities = [
        TextRankSummarizer(3).identity,
        ChatModelSummarizer(chat, 3).identity,
        ChatModelSummarizer(chat, 2).identity,
        ChatModelSummarizer(other, 3).identity,
        EndpointSummarizer(endpoint).identity,
        EndpointSummarizer(endpoint.model_copy(update={"model": "n"})).identity,
    ]
    assert len(set(identities)) == len(identities)
    elsewhere = endpoint.model_copy(update={"url": "http://127.0.0.1:2/v1", "timeout": 1})
    assert EndpointSummarizer(elsewhere).identity == EndpointSummarizer(endpoint).identity
    assert ChatModelSummarizer(chat, 3, "cpu").identity == ChatModelSummarizer(chat, 3).identity


def test_settings_open_their_summarizer(chat: LocalModel, tmp_path: Path) -> None:
    assert isinstance(open_summarizer(SummarizeSettings(by="textrank", sentences=2), tmp_path), TextRankSummarizer)
    local = open_summarizer(SummarizeSettings(by="base_model", model=f"path:{chat.path}"), tmp_path)
    assert local.identity == ChatModelSummarizer(chat, 3).identity
    endpoint = SummarizeSettings(by="endpoint", model="m", url=HERE)
    assert isinstance(open_summarizer(endpoint, tmp_path), EndpointSummarizer)


class Endpoint:
    """A chat completion on loopback: ``answer`` makes each answer of the text that it was sent."""

    def __init__(self) -> None:
        self.got = list[dict[str, Any]]()
        self.headers = list[dict[str, str]]()
        self.statuses = list[int]()  # of the next requests, before all is well
        self.answer: Callable[[str], Any] = lambda text: f"A text of {len(text)} characters."
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.got.append(body)
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    status = outer.statuses.pop(0) if outer.statuses else 200
                text = body["messages"][-1]["content"]
                choice = {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": outer.answer(text)},
                }
                whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                payload = json.dumps(whole if choice["message"]["content"] != [] else {"choices": []}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.settings = SummarizeSettings(
            by="endpoint",
            url=f"http://127.0.0.1:{self.server.server_port}/v1",
            model="m",
            api_key_env="A_KEY",
            timeout=20,
        )


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("A_KEY", KEY)
    made = Endpoint()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_an_endpoint_summarizes_each_text_in_its_place(endpoint: Endpoint) -> None:
    texts = [TEXT + " More." * i for i in range(10)]
    summarizer = EndpointSummarizer(endpoint.settings)
    assert summarizer.summarize(texts) == [f"A text of {len(text)} characters." for text in texts]
    assert summarizer.fallbacks == 0
    assert sorted(body["messages"][-1]["content"] for body in endpoint.got) == sorted(texts)
    assert all(body["temperature"] == 0 and body["model"] == "m" for body in endpoint.got)
    assert {headers["authorization"] for headers in endpoint.headers} == {f"Bearer {KEY}"}
    assert summarizer.summarize([]) == []


@pytest.mark.parametrize("odd", ["", "ok", None, [], ["x"], TEXT * 2])
def test_an_answer_that_is_no_summary_gives_way_to_textrank(endpoint: Endpoint, odd: Any) -> None:
    endpoint.answer = lambda text: odd if "uncle" in text else "All the rest is well."
    endpoint.settings = endpoint.settings.model_copy(update={"sentences": 50 if odd == TEXT * 2 else 3})
    summarizer = EndpointSummarizer(endpoint.settings)
    other = "It went well. " * 3 + "Nothing else."
    assert summarizer.summarize([TEXT, other]) == [
        textrank(TEXT, endpoint.settings.sentences),
        "All the rest is well.",
    ]
    assert summarizer.fallbacks == 1


def test_an_endpoint_that_is_busy_is_asked_again(endpoint: Endpoint) -> None:
    endpoint.statuses = [429, 503]
    assert EndpointSummarizer(endpoint.settings).summarize([TEXT]) == [f"A text of {len(TEXT)} characters."]
    assert len(endpoint.got) == 3


def test_an_endpoint_that_refuses_is_told_of_without_the_key_and_the_text(endpoint: Endpoint) -> None:
    endpoint.statuses = [401] * 50
    with pytest.raises(ErasmoError, match="status 401") as error:
        EndpointSummarizer(endpoint.settings).summarize([TEXT] * 20)
    assert KEY not in str(error.value)
    assert "dog" not in str(error.value)
