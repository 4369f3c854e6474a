"""Notices: what receivers get, and that a failing one costs a line without a secret in it."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.notify import Notice, notify
from erasmo_dagster.settings import NotifySettings, expand

SECRET = "hunter2-SECRET"
NOTICE = Notice(
    dataset="customers",
    event="blocked",
    message="version 3 was blocked at the gate (silhouette fell by 0.2)",
    version=3,
    run_id="run-1",
    at=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
)
SENT = {
    "dataset": "customers",
    "event": "blocked",
    "message": "version 3 was blocked at the gate (silhouette fell by 0.2)",
    "version": 3,
    "run_id": "run-1",
    "at": "2024-05-06T07:08:09Z",
}


class Receiver:
    """A webhook on loopback that answers as it is told and keeps what it got."""

    def __init__(self) -> None:
        self.status, self.headers, self.wait, self.parts = 200, dict[str, str](), 0.0, 0
        self.got: list[tuple[str, str, dict[str, str], bytes]] = []
        self.stop = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                outer.got.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
                outer.stop.wait(outer.wait)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(f"the body repeats {SECRET}".encode())
                    for _ in range(outer.parts):
                        outer.stop.wait(0.05)
                        self.wfile.write(b"and so on")
                except OSError:
                    pass  # the sender has gone, as it should

            do_POST = do_GET = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield receiver
    receiver.stop.set()
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOOK_TOKEN", SECRET)
    monkeypatch.delenv("HOOK_ABSENT", raising=False)


def script(folder: Path, code: str) -> tuple[str, str]:
    file = folder / "receiver.py"
    file.write_text(code)
    return (sys.executable, str(file))


def tell(timeout: float = 10.0, **settings: Any) -> list[str]:
    """What notify says, checked to be one line each and free of the secret."""
    faults = notify(NotifySettings.model_validate(settings), NOTICE, timeout=timeout)
    assert SECRET not in str(faults)
    assert all(fault.startswith("Got ") and "\n" not in fault for fault in faults)
    return faults


def test_a_webhook_gets_the_notice_as_json_with_headers_from_the_environment(receiver: Receiver) -> None:
    headers = {"Authorization": "Bearer ${HOOK_TOKEN}", "X-Plain": "$5 {a}"}
    assert tell(webhook=receiver.url + "?key=${HOOK_TOKEN}", headers=headers) == []
    ((method, path, got, body),) = receiver.got
    assert (method, path) == ("POST", f"/hook?key={SECRET}")
    assert got["Content-Type"] == "application/json"
    assert got["Authorization"] == f"Bearer {SECRET}"
    assert got["X-Plain"] == "$5 {a}"
    assert json.loads(body) == SENT


def test_a_command_gets_the_notice_on_its_standard_input_and_no_shell(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = f"import pathlib, sys; print({SECRET!r}); pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())"
    target = tmp_path / "got $(touch stolen); `touch stolen`"
    assert tell(command=[*script(tmp_path, code), str(target)]) == []
    assert json.loads(target.read_text()) == SENT
    assert not list(tmp_path.rglob("stolen"))
    assert not Path("stolen").exists()
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize("status", [201, 204])
def test_every_status_of_success_is_one(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert tell(webhook=receiver.url) == []


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_refusal_is_told_by_its_status_alone(receiver: Receiver, status: int) -> None:
    receiver.status = status
    url = receiver.url.replace("//", "//user:${HOOK_TOKEN}@") + "?key=${HOOK_TOKEN}"
    assert tell(webhook=url) == [f"Got HTTP {status} from notify.webhook"]
    assert f"key={SECRET}" in receiver.got[0][1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"Location": receiver.url + "/elsewhere"}
    assert tell(webhook=receiver.url, headers={"X-Token": "${HOOK_TOKEN}"}) == [
        f"Got HTTP {status} from notify.webhook"
    ]
    assert [path for _, path, _, _ in receiver.got] == ["/hook"]


def test_the_body_of_an_answer_is_not_read(receiver: Receiver) -> None:
    receiver.parts = 200  # ten seconds of them
    started = time.monotonic()
    assert tell(webhook=receiver.url) == []
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("settings", [{"webhook": "http://127.0.0.1:1/${HOOK_ABSENT}"}, {"headers": "absent"}])
def test_a_variable_that_is_not_set_is_named_and_nothing_is_sent(receiver: Receiver, settings: dict[str, Any]) -> None:
    if "headers" in settings:
        settings = {"webhook": receiver.url, "headers": {"A": "${HOOK_TOKEN}", "B": "${HOOK_ABSENT}"}}
    (fault,) = tell(**settings)
    assert "HOOK_ABSENT" in fault
    assert receiver.got == []


@contextmanager
def bound_port(*, listening: bool) -> Iterator[int]:
    """A port of ours at which nobody answers: closed, or open with a full queue of one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listening:
            taken.listen(1)
        yield taken.getsockname()[1]


def test_a_closed_port(receiver: Receiver) -> None:
    with bound_port(listening=False) as port:
        url = f"http://user:${{HOOK_TOKEN}}@127.0.0.1:{port}/${{HOOK_TOKEN}}?key=${{HOOK_TOKEN}}"
        assert tell(webhook=url) == ["Got no answer from notify.webhook (ConnectionError)"]


def test_a_webhook_that_does_not_answer(receiver: Receiver) -> None:
    receiver.wait = 30
    started = time.monotonic()
    assert tell(timeout=0.3, webhook=receiver.url + "?key=${HOOK_TOKEN}") == [
        "Got no answer from notify.webhook in 0.3 s (ReadTimeout)"
    ]
    assert time.monotonic() - started < 5


def test_a_webhook_that_takes_the_connection_and_says_nothing() -> None:
    with bound_port(listening=True) as port:
        (fault,) = tell(timeout=0.3, webhook=f"http://127.0.0.1:{port}/${{HOOK_TOKEN}}")
    assert fault == "Got no answer from notify.webhook in 0.3 s (ReadTimeout)"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd?${HOOK_TOKEN}",
        "ftp://127.0.0.1/${HOOK_TOKEN}",
        "gopher://127.0.0.1/",
        "${HOOK_TOKEN}",
        "//127.0.0.1/${HOOK_TOKEN}",
        "javascript:alert(1)",
    ],
)
def test_other_schemes_are_refused(url: str) -> None:
    assert tell(webhook=url) == ["Got notify.webhook that is neither http nor https"]


@pytest.mark.parametrize(
    "url",
    [
        "http://[${HOOK_TOKEN}",
        "http://",
        "http://a..${HOOK_TOKEN}/",
        "http://127.0.0.1:99999/${HOOK_TOKEN}",
        "http://" + "x" * 300,
    ],
)
def test_an_address_that_cannot_be_one_is_a_fault(url: str) -> None:
    (fault,) = tell(timeout=2, webhook=url)
    assert fault.startswith("Got no answer from notify.webhook (")


@pytest.mark.parametrize("value", [f"{SECRET}\nX-More: 1", f"{SECRET} \N{PENGUIN}"])
def test_a_header_that_cannot_be_sent_is_a_fault(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", value)
    (fault,) = tell(webhook=receiver.url, headers={"X-Token": "${HOOK_TOKEN}"})
    assert fault.startswith("Got no answer from notify.webhook (")
    assert receiver.got == []


def test_bad_certificates_of_this_machine_are_a_fault(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"/absent/{SECRET}.pem")
    (fault,) = tell(webhook=receiver.url.replace("http:", "https:"))
    assert fault.startswith("Got no answer from notify.webhook (")


def test_the_exit_status_of_a_command_is_told_and_not_its_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = f"import sys; print({SECRET!r}); print({SECRET!r}, file=sys.stderr); sys.exit(3)"
    assert tell(command=script(tmp_path, code)) == ["Got exit status 3 from notify.command"]
    assert SECRET not in "".join(capfd.readouterr())


def test_a_command_that_reads_nothing_is_as_good_as_any(tmp_path: Path) -> None:
    long = NOTICE.model_copy(update={"message": "x" * 1_000_000})
    settings = NotifySettings(command=script(tmp_path, "import os; os.close(0)"))
    assert notify(settings, long) == []


@pytest.mark.parametrize("command", [[f"/absent/{SECRET}"], ["/etc"], [""], [f"a\0{SECRET}"]])
def test_a_command_that_does_not_start(command: list[str]) -> None:
    (fault,) = tell(command=command)
    assert fault.startswith("Got notify.command that does not start (")


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_a_command_that_hangs_is_killed_and_its_child_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
temporary = pathlib.Path({str(pids)!r} + ".tmp")
temporary.write_text(f"{{os.getpid()}} {{child.pid}}")
temporary.replace({str(pids)!r})
time.sleep(60)
"""
    long = NOTICE.model_copy(update={"message": "x" * 1_000_000})  # it is never read, so it is never all written
    for notice in (NOTICE, long):
        pids.unlink(missing_ok=True)
        started = time.monotonic()
        faults = notify(NotifySettings(command=script(tmp_path, code)), notice, timeout=3)
        assert faults == ["Got no end of notify.command in 3 s: it was killed"]
        assert time.monotonic() - started < 20
        own, child = map(int, pids.read_text().split())
        assert not is_alive(own)
        deadline = time.monotonic() + 10
        while is_alive(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_alive(child)
        assert is_alive(os.getpid())


def test_a_receiver_that_fails_does_not_keep_the_other_from_its_notice(receiver: Receiver, tmp_path: Path) -> None:
    target = tmp_path / "got"
    code = f"import pathlib, sys; pathlib.Path({str(target)!r}).write_text(sys.stdin.read()); sys.exit(4)"
    command = script(tmp_path, code)
    receiver.status = 500
    assert tell(webhook=receiver.url, command=command) == [
        "Got HTTP 500 from notify.webhook",
        "Got exit status 4 from notify.command",
    ]
    assert json.loads(target.read_text()) == SENT
    target.unlink()
    assert len(tell(webhook="http://127.0.0.1/${HOOK_ABSENT}", command=command)) == 2
    assert target.exists()
    receiver.status = 200
    assert tell(webhook=receiver.url, command=command) == ["Got exit status 4 from notify.command"]


def test_expand_replaces_variables_and_nothing_else() -> None:
    assert expand("a ${HOOK_TOKEN} b${HOOK_TOKEN}", "here") == f"a {SECRET} b{SECRET}"
    for text in ("$HOOK_TOKEN", "${}", "${a b}", "{HOOK_TOKEN}", "$(id)", "~"):
        assert expand(text, "here") == text
    with pytest.raises(ErasmoError, match="HOOK_ABSENT"):
        expand("${HOOK_TOKEN} ${HOOK_ABSENT}", "here")


def test_an_expanded_value_is_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_OUTER", "${HOOK_TOKEN}")
    assert expand("${HOOK_OUTER}", "here") == "${HOOK_TOKEN}"


def test_a_notice_cannot_change_and_knows_its_time_zone() -> None:
    with pytest.raises(ValidationError):
        NOTICE.dataset = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Notice.model_validate({**NOTICE.model_dump(), "at": datetime(2024, 5, 6)})
