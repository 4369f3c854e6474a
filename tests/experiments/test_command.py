"""``erasmo experiment``: what it prints, how it exits; and the same as a job of Dagster's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from erasmo_dagster import cli, cli_experiments
from erasmo_dagster.experiments import results
from erasmo_dagster.settings import Project

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def erasmo(project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("ERASMO_HOME", str(project.home))
    monkeypatch.setattr(cli_experiments.out, "width", 250)

    def erasmo(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["erasmo", "experiment", *arguments])
        capfd.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return erasmo


def test_run_show_and_list(erasmo: Command, write_grid: Callable[..., Path], data: Path, tmp_path: Path) -> None:
    file = str(write_grid(k=[3, 60]))
    page = tmp_path / "report.html"
    status, out, err = erasmo("run", file, "--data", str(data), "--out", str(page))
    assert status == 0, err
    assert "small: 2 cells: 0 were done, 1 are done now, 1 failed.\n  - Got 60 rows" in out
    assert "TF-IDF" in out
    assert "Which one?" in page.read_text()
    status, shown, _ = erasmo("show", "small")
    assert (status, shown) == (0, out[: out.index("small: 2 cells")])
    status, out, _ = erasmo("list")
    assert status == 0
    assert "paper-2" in out
    assert [line.split()[:3] for line in out.splitlines() if line.startswith("small ")] == [["small", "1", "1"]]


def test_faults_are_one_line(erasmo: Command, write_grid: Callable[..., Path], data: Path) -> None:
    for arguments, told in (
        (("run", "nothing"), "error: Got experiment 'nothing', expected a YAML file, or one of: ablation"),
        (("run", str(write_grid("one", k=1)), "--data", str(data)), "got k=1"),
        (("run", str(write_grid("two", datasets=["absent"]))), "error: Got dataset 'absent', which has no file"),
        (("run", str(write_grid()), "--data", str(data / "no")), "error: Got no file "),
        (("show", "small"), "error: Got experiment 'small', of which there are no results"),
    ):
        status, _, err = erasmo(*arguments)
        assert status == 1
        assert told in err
        assert len(err.strip().splitlines()) == 1, err


def test_a_label_and_an_option_that_do_not_fit_stop_the_run_before_it_begins(
    erasmo: Command, write_grid: Callable[..., Path], data: Path
) -> None:
    unheeded = {"name": "x", "encoder": {"name": "tfidf"}, "embedding": {"pooling": "last"}}
    status, _, err = erasmo("run", str(write_grid(encoders=[unheeded])), "--data", str(data))
    assert (status, "arm 'x' on dataset 'customers'" in err, "does not heed `embedding.pooling`" in err) == (
        1,
        True,
        True,
    )
    write_grid()
    dataset = {"name": "customers", "source": {"path": "${DATA}/customers.parquet"}, "key": "id"}
    status, _, err = erasmo("run", str(write_grid(datasets=[dataset])), "--data", str(data))
    assert (status, "Got `k: label` for dataset 'customers', whose label has 0 values" in err) == (1, True)
    status, _, err = erasmo("run", str(write_grid(datasets=[{**dataset, "key": "ids"}], k=2)), "--data", str(data))
    assert (status, "mend `key` in datasets.customers in" in err) == (1, True)


def test_a_fault_of_ours_keeps_its_traceback(
    erasmo: Command, write_grid: Callable[..., Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(results, "cluster", broken)
    with pytest.raises(ZeroDivisionError):
        erasmo("run", str(write_grid()), "--data", str(data))


def test_ctrl_c_says_how_to_go_on(
    erasmo: Command, write_grid: Callable[..., Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results, "cluster", stop)
        status, _, err = erasmo("run", str(write_grid()), "--data", str(data))
    assert (status, "it goes on from what is done" in err) == (130, True)
    assert erasmo("run", str(write_grid()), "--data", str(data))[0] == 0
