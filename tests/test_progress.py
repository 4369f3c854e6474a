from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from tqdm import tqdm

from erasmo_dagster import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the seconds since the start, as every bar sees them."""
    now = [1_000.0]
    begin: Any = progress.bar

    def bar(*arguments: Any, **options: Any) -> Any:
        shown = begin(*arguments, **options)
        shown._time = lambda: now[0]
        shown.start_t = shown.last_print_t = now[0]
        return shown

    monkeypatch.setattr(progress, "bar", bar)
    return lambda seconds: now.__setitem__(0, 1_000.0 + seconds)


def to_go(shown: tqdm[Any]) -> float:
    told = shown.format_dict
    rate = told["rate"] or (told["n"] - told["initial"]) / told["elapsed"]
    assert f"{tqdm.format_interval((told['total'] - told['n']) / rate)}," in str(shown)
    return float((told["total"] - told["n"]) / rate)


def test_the_time_to_go_is_by_the_mean_speed_since_the_start(clock: Callable[[float], None]) -> None:
    with progress.bar("embedding", 10_000, "tokens") as shown:
        for batch in range(1, 51):
            # Batches of seconds: every fifth waits for another program.
            clock(2.0 * batch + 2.0 * (batch // 5))
            shown.update(100)
        assert to_go(shown) == pytest.approx(120.0)
        shown.update(5_000)


def test_what_was_done_before_is_in_the_share_and_not_in_the_speed(clock: Callable[[float], None]) -> None:
    with progress.bar("fine-tuning", 1_000, "tokens", done=900) as shown:
        clock(10.0)
        shown.update(10)
        assert shown.n == 910
        assert to_go(shown) == pytest.approx(90.0)


def test_work_that_ends_by_itself_is_whole_and_what_is_cut_off_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("fine-tuning", 100, "tokens") as shown:
        shown.update(40)
    assert "100%" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(KeyboardInterrupt), progress.bar("fine-tuning", 100, "tokens") as shown:
        shown.update(40)
        raise KeyboardInterrupt
    assert " 40%" in capsys.readouterr().err.splitlines()[-1]


def test_off_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with progress.bar("embedding", 1_000, "tokens") as shown:
        for second in range(1, 61):
            clock(float(second))
            shown.update(1)
        assert len(log.getvalue().split("\r")) - 1 in (4, 5)  # at 0, 15, 30, 45, 60 s


def test_hidden_bars_write_nothing_and_count_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.hidden(), progress.bar("embedding", 10, "tokens") as shown:
        shown.set_postfix(loss="1")
        shown.update(10)
        assert shown.n == 10
    assert capsys.readouterr().err == ""
    with progress.bar("embedding", 10, "tokens") as shown:
        shown.update(10)
    assert "embedding" in capsys.readouterr().err


def test_bars_say_which_part_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(progress, "_terminal", written)
    for number, count in ((1, 1), (2, 3)):
        with progress.part(number, count), progress.bar("embedding", 2, "tokens") as shown:
            shown.update(2)
    with progress.bar("embedding", 2, "tokens") as shown:
        shown.update(2)
    told = [
        line.split(":")[0].strip() for line in written.getvalue().replace("\r", "\n").splitlines() if "100%" in line
    ]
    assert list(dict.fromkeys(told)) == ["embedding", "embedding 2 of 3"]
    assert told[-1] == "embedding"
