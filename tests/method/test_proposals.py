"""Names that a model proposes: what it is told, what of its answer can be a name, and an endpoint that misbehaves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.profiling import TableProfile, profile_segments
from erasmo_dagster.method.proposals import ask_base_model, ask_endpoint, naming_prompt, to_name, usable_names
from erasmo_dagster.method.textual import fit_text
from erasmo_dagster.settings import DatasetSettings, NamingSettings

KEY = "sk-very-secret"


@pytest.fixture(scope="module")
def profile() -> TableProfile:
    frame = pl.DataFrame(
        {
            "job": ["student"] * 20 + ["retired"] * 20,
            "age": [*range(20, 40), *range(60, 80)],
            "iban": [f"DE{i:020}" for i in range(40)],
        }
    )
    settings = DatasetSettings.model_validate({"source": {"path": "x"}, "key": "id", "sensitive": ["iban"]})
    plan = fit_text(frame, settings)
    return profile_segments(frame, np.repeat([0, 1], 20), plan.columns)


class Endpoint:
    """A chat completion on loopback that answers as it is told."""

    def __init__(self) -> None:
        self.status, self.answers, self.got = 200, list[Any](), list[tuple[dict[str, str], dict[str, Any]]]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.got.append((dict(self.headers), body))
                content = outer.answers.pop(0) if outer.answers else "a name"
                answer = {
                    "choices": [
                        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
                    ]
                }
                if content == "no choices":
                    answer = {"choices": []}
                bodies = {
                    "html": b"<html>",
                    "[]": b"[]",
                    "no message": b'{"choices": [{}]}',
                    "a list": b'{"choices": [{"message": {"role": "assistant", "content": ["x"]}}]}',
                }
                whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", **answer}
                payload = bodies.get(content) or json.dumps(whole).encode()
                self.send_response(outer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.settings = NamingSettings(
            by="endpoint",
            url=f"http://127.0.0.1:{self.server.server_port}/v1",
            model="m",
            api_key_env="NAMING_KEY",
            timeout=20,
        )


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("NAMING_KEY", KEY)
    made = Endpoint()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_a_model_is_told_traits_and_no_row_and_nothing_sensitive(profile: TableProfile) -> None:
    prompts = [naming_prompt(segment) for segment in profile.segments]
    assert "student" in prompts[0]
    assert "age" in prompts[0]
    assert "retired" in prompts[1]
    assert all("iban" not in prompt and "DE0" not in prompt for prompt in prompts)


def test_segments_with_a_name_are_not_named_again(profile: TableProfile) -> None:
    assert [s.segment_id for s in to_name(profile, {0: "young"})] == [1]


def test_an_endpoint_names_each_segment_with_the_key_of_the_environment(
    profile: TableProfile, endpoint: Endpoint
) -> None:
    endpoint.answers = ["Young students", "Retired people"]
    assert ask_endpoint(profile.segments, endpoint.settings) == {0: "Young students", 1: "Retired people"}
    assert [{k.lower(): v for k, v in headers.items()}["authorization"] for headers, _ in endpoint.got] == [
        f"Bearer {KEY}"
    ] * 2
    assert all(body["temperature"] == 0 and body["model"] == "m" for _, body in endpoint.got)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_an_endpoint_that_fails_is_told_of_without_the_key(
    profile: TableProfile, endpoint: Endpoint, status: int
) -> None:
    endpoint.status = status
    endpoint.answers = [f"you sent {KEY}"] * 9
    with pytest.raises(ErasmoError, match=r"from the endpoint under naming\.url") as error:
        ask_endpoint(profile.segments[:1], endpoint.settings)
    assert KEY not in str(error.value)


def test_an_endpoint_that_is_not_there_is_told_of(profile: TableProfile, endpoint: Endpoint) -> None:
    away = endpoint.settings.model_copy(update={"url": "http://127.0.0.1:9/v1"})
    with pytest.raises(ErasmoError, match="APIConnectionError from the endpoint"):
        ask_endpoint(profile.segments[:1], away)


def test_an_answer_without_a_choice_is_an_empty_proposal(profile: TableProfile, endpoint: Endpoint) -> None:
    endpoint.answers = ["no choices"]
    assert ask_endpoint(profile.segments[:1], endpoint.settings) == {0: ""}


@pytest.mark.parametrize("answer", ["html", "[]", "no message"])
def test_an_answer_of_another_form_is_told_of(profile: TableProfile, endpoint: Endpoint, answer: str) -> None:
    endpoint.answers = [answer]
    with pytest.raises(ErasmoError, match="from the endpoint under"):
        ask_endpoint(profile.segments[:1], endpoint.settings)


def test_an_answer_that_is_no_text_is_an_empty_proposal(profile: TableProfile, endpoint: Endpoint) -> None:
    endpoint.answers = ["a list"]
    assert ask_endpoint(profile.segments[:1], endpoint.settings) == {0: ""}


def test_a_proxy_gets_nothing_that_may_not_leave(
    profile: TableProfile, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, endpoint.settings.url.removesuffix("/v1"))  # type: ignore[union-attr]
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    away = endpoint.settings.model_copy(update={"url": "http://127.0.0.1:9/v1"})
    with pytest.raises(ErasmoError):
        ask_endpoint(profile.segments[:1], away)
    assert endpoint.got == []


def test_a_key_that_is_not_set_is_told_of(profile: TableProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAMING_KEY", raising=False)
    settings = NamingSettings(by="endpoint", url="http://localhost:9", model="m", api_key_env="NAMING_KEY")
    with pytest.raises(ErasmoError, match="NAMING_KEY"):
        ask_endpoint(profile.segments, settings)


def test_a_base_model_answers_the_same_twice(profile: TableProfile, base: LocalModel) -> None:
    first = ask_base_model(profile.segments, base, device="cpu")
    assert sorted(first) == [0, 1]
    assert ask_base_model(profile.segments, base, device="cpu") == first


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("Young students", "Young students"),
        ('  "Young students."\nBecause they study.', "Young students"),
        ("**Name:** Young students", "Young students"),
        ("\n\nname of the group: Young\tstudents", "Young students"),
    ],
)
def test_the_first_line_of_an_answer_is_the_name(answer: str, name: str) -> None:
    assert usable_names({0: answer}, {}) == ({0: name}, [])


@pytest.mark.parametrize("answer", ["", "  \n ", "x" * 61, '""', "taken ONE", "Noise"])
def test_what_cannot_be_a_name_is_a_remark(answer: str) -> None:
    names, remarks = usable_names({4: answer}, {1: "Taken one"})
    assert names == {}
    assert len(remarks) == 1
    assert remarks[0].startswith("the proposal for segment 4 was not used")


def test_two_segments_do_not_get_one_name() -> None:
    names, remarks = usable_names({0: "Young", 1: "young"}, {})
    assert names == {0: "Young"}
    assert len(remarks) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"by": "endpoint"},
        {"by": "endpoint", "url": "https://api.example.org/v1", "model": "m"},
        {"by": "endpoint", "url": "http://10.0.0.1/v1", "model": "m"},
        {"names": {0: "a", 1: "A"}},
        {"names": {-1: "a"}},
        {"names": {0: "Noise"}},
        {"names": {0: "two\nlines"}},
        {"names": {0: "x" * 61}},
        {"names": {0: "  "}},
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NamingSettings.model_validate(options)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:8000/v1"])
def test_this_machine_needs_no_leave(url: str) -> None:
    assert NamingSettings(by="endpoint", url=url, model="m").url == url
