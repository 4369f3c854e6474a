"""The Hugging Face hub: a model's safetensors, config and tokenizer, through the hub's own cache."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.method.quiet import quiet_libraries

_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
# Other frameworks' copies, and the weights a second time; but not 1_Pooling, 2_Dense: a sentence encoder's modules.
_UNWANTED = ["[!0-9]*/*", "consolidated*"]


def find_cached(repo: str) -> tuple[Path, str] | None:
    """Folder and commit of ``<owner>/<model>[@<revision>]`` where the cache holds it whole; no network."""
    quiet_libraries()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name, _, revision = repo.partition("@")
    try:
        path = Path(
            snapshot_download(
                name,
                revision=revision or None,
                local_files_only=True,
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
            )
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise _bad_name(repo) from error
    return (path, path.name) if _loadable(path) else None


def fetch(repo: str) -> tuple[Path, str]:
    """Download ``<owner>/<model>[@<revision>]`` into the hub's cache; its folder and commit.

    Raises ErasmoError: no such model, one that needs a login, no network, a full disk.
    """
    quiet_libraries()
    from huggingface_hub import constants, errors, snapshot_download

    name, _, revision = repo.partition("@")
    try:
        with disk_errors(Path(constants.HF_HUB_CACHE)), _bars():
            path = Path(
                snapshot_download(name, revision=revision or None, allow_patterns=_WANTED, ignore_patterns=_UNWANTED)
            )
    except errors.HFValidationError as error:
        raise _bad_name(repo) from error
    except errors.GatedRepoError as error:
        raise ErasmoError(
            f"Got hf:{repo}, which the hub gives only to those who accepted its terms",
            expected="a login that may read it",
            fix="accept the terms on its page, then run `hf auth login`",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ErasmoError(
            f"Got hf:{repo}, which the hub does not have or does not show without a login",
            expected="hf:<owner>/<model> or hf:<owner>/<model>@<revision>",
            fix="correct `adapter.base_model`, or run `hf auth login`",
        ) from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise ErasmoError(
            f"Got no answer from {constants.ENDPOINT} for hf:{repo} ({_first_line(error)})",
            expected=f"its files {', '.join(_WANTED)}, fetched once",
            fix=f"where there is no network, run `hf download {name} --local-dir DIR` on a machine that has one, bring "
            f"DIR and use path:DIR, or copy that machine's {constants.HF_HUB_CACHE}",
        ) from error
    return path, path.name


def list_cached() -> list[tuple[str, Path, str]]:
    """(repository, folder, commit) of every causal language model and sentence encoder that the cache holds whole."""
    quiet_libraries()
    from huggingface_hub import constants

    found = []
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/")
        for snapshot in sorted(folder.glob("snapshots/*")):
            if _loadable(snapshot) and (_is_causal_lm(snapshot) or (snapshot / "modules.json").is_file()):
                found.append((repo, snapshot, snapshot.name))
    return found


def _loadable(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _is_causal_lm(folder: Path) -> bool:
    try:
        kinds = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return False
    return any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds)


@contextmanager
def _bars() -> Iterator[None]:
    """The hub's own progress bars, for the time of a download."""
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    if "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ:
        yield
        return
    enable_progress_bars()
    try:
        yield
    finally:
        disable_progress_bars()


def _bad_name(repo: str) -> ErasmoError:
    return ErasmoError(
        f"Got base model 'hf:{repo}'",
        expected="hf:<owner>/<model> or hf:<owner>/<model>@<revision>",
        fix="correct `adapter.base_model`",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
