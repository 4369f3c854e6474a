"""An encoder from a dataset's settings: what it is made of, what it learns, and how it is opened again.

A package registers an encoder of its own by an entry point of the group ``erasmo_dagster.encoders``. The entry's object
is a class that is called with its options and has ``encode(texts)``; with ``fit(texts, options, *, seed)``,
``save(folder)`` and ``load(folder, options)`` it learns from the corpus, as ours do. Its attribute ``Options``, where
there is one, is a subclass of :class:`~erasmo_dagster.settings.EncoderOptions`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import checksums, damaged, whole_folder
from erasmo_dagster.method.base_models import LocalModel, resolve
from erasmo_dagster.method.encoders.base import Encoder, FittedEncoder
from erasmo_dagster.method.textual import TextPlan, join_clauses
from erasmo_dagster.settings import (
    CausalLMOptions,
    DatasetSettings,
    EncoderOptions,
    ErasmoOptions,
    LocalModelOptions,
    MpnetDiceOptions,
    OpenAIOptions,
    SentenceTransformerOptions,
    TfidfOptions,
    options_class,
)
from erasmo_dagster.settings.encoders import registered

if TYPE_CHECKING:
    from erasmo_dagster.method.adapter import FineTune

MANIFEST = "erasmo.json"


def identify(settings: DatasetSettings, models_dir: Path) -> dict[str, Any]:
    """All that vectors depend on beside what is learnt and the settings of `embedding`, as JSON.

    Weights are fetched where they are not there yet. ``encoder`` and ``options`` are the encoder's, ``base_model`` and
    ``revision`` its weights', ``learns`` says whether it is fitted on the corpus. Raises ErasmoError as
    :func:`~erasmo_dagster.method.base_models.resolve` does.
    """
    options = settings.encoder
    about: dict[str, Any] = {"encoder": options.name, "options": options.deciding(), "learns": _learns(options)}
    if (name := _weights(settings)) is not None:
        base = resolve(name, models_dir)
        about |= {"base_model": base.name, "revision": base.revision}
        if options.tuned:
            about["method"] = settings.adapter.method
    elif options.name in (entries := registered()):
        package = entries[options.name].dist
        about["revision"] = f"{package.name} {package.version}" if package else entries[options.name].value
    return about


def fit_encoder(
    rows: Sequence[Sequence[str]],
    plan: TextPlan,
    settings: DatasetSettings,
    about: Mapping[str, Any],
    *,
    models_dir: Path,
    out: Path,
    checkpoints: Path,
    provenance: dict[str, Any],
    tune: FineTune | None = None,
) -> dict[str, Any]:
    """Fit the encoder that ``about`` (of :func:`identify`) describes on ``rows``, the corpus's clauses.

    What is learnt is in the folder ``out``, which appears whole. Gives what is to be told of it: ``training`` for a
    fine-tuned model. ``checkpoints`` is a folder of an unfinished training's own. ``tune`` fine-tunes in the place of
    :func:`~erasmo_dagster.method.adapter.fine_tune`, such as on a cluster. Nothing happens for an encoder that learns
    nothing. Raises ErasmoError as the encoder does.
    """
    options, seed = settings.encoder, settings.seed
    if not about["learns"]:
        return {}
    if isinstance(options, ErasmoOptions):
        from erasmo_dagster.method.adapter import fine_tune

        base = resolve(settings.adapter.base_model, models_dir)
        result = (tune or fine_tune)(
            rows, base, settings.adapter, seed=seed, out=out, checkpoints=checkpoints, provenance=provenance
        )
        return {"training": result.model_dump(mode="json")}
    texts = [join_clauses(clauses) for clauses in rows]
    fitted: FittedEncoder
    if isinstance(options, TfidfOptions):
        from erasmo_dagster.method.encoders.tfidf import TfidfEncoder

        fitted = TfidfEncoder.fit(texts, options, seed=seed)
    elif isinstance(options, MpnetDiceOptions):
        from erasmo_dagster.method.encoders.mpnet_dice import MpnetDiceEncoder

        model = _local(about, models_dir)
        fitted = MpnetDiceEncoder.fit(texts, plan, options, model, settings.embedding, seed=seed)
    else:
        fitted = _own(options).fit(texts, options, seed=seed)
    with whole_folder(out) as folder:
        fitted.save(folder)
        manifest = {**about, "seed": seed, "provenance": provenance, "files": checksums(folder)}
        manifest["versions"] = {name: version(name) for name in ("erasmo-dagster", "scikit-learn")}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return {}


def open_encoder(about: Mapping[str, Any], settings: DatasetSettings, folder: Path | None, models_dir: Path) -> Encoder:
    """The encoder that ``about`` describes, with what it has learnt in ``folder`` (None where it learns nothing).

    ``about`` counts, not the YAML, which may have moved on since: of that only options on which no vector depends, such
    as the device, are taken. Raises ErasmoError where files are damaged or gone.
    """
    options = options_of(about, settings)
    if isinstance(options, ErasmoOptions | CausalLMOptions):
        from erasmo_dagster.method.encoders.causal_lm import CausalLMEncoder

        device = options.device if isinstance(options, CausalLMOptions) else settings.adapter.device
        return CausalLMEncoder(_local(about, models_dir), folder, settings.embedding, device=device)
    if isinstance(options, OpenAIOptions):
        from erasmo_dagster.method.encoders.openai import OpenAIEncoder

        return OpenAIEncoder(options)
    if isinstance(options, SentenceTransformerOptions) and not isinstance(options, MpnetDiceOptions):
        from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder

        return SentenceTransformerEncoder(_local(about, models_dir), settings.embedding, device=options.device)
    if not about["learns"]:
        own: Encoder = _own(options)(options)
        return own
    assert folder is not None
    _check(folder)
    if isinstance(options, TfidfOptions):
        from erasmo_dagster.method.encoders.tfidf import TfidfEncoder

        return TfidfEncoder.load(folder, normalize=settings.embedding.normalize)
    if isinstance(options, MpnetDiceOptions):
        from erasmo_dagster.method.encoders.mpnet_dice import MpnetDiceEncoder

        return MpnetDiceEncoder.load(folder, _local(about, models_dir), settings.embedding, device=options.device)
    loaded: Encoder = _own(options).load(folder, options)
    return loaded


def _learns(options: EncoderOptions) -> bool:
    if isinstance(options, ErasmoOptions | TfidfOptions | MpnetDiceOptions):
        return True
    if isinstance(options, LocalModelOptions | OpenAIOptions):
        return False
    return hasattr(_own(options), "fit")


def _weights(settings: DatasetSettings) -> str | None:
    """The base model that the encoder reads with; None for one without."""
    options = settings.encoder
    if isinstance(options, ErasmoOptions):
        return settings.adapter.base_model
    return options.model if isinstance(options, LocalModelOptions) else None


def _local(about: Mapping[str, Any], models_dir: Path) -> LocalModel:
    return resolve(about["base_model"], models_dir)


def _own(options: EncoderOptions) -> Any:
    """The class that a package registers."""
    return registered()[options.name].load()


def options_of(about: Mapping[str, Any], settings: DatasetSettings) -> EncoderOptions:
    """The options that ``about`` was made with, with those of the YAML on which no vector depends.

    Raises ErasmoError for an encoder that is not installed any more, or may not be used as the YAML is now.
    """
    try:
        known = options_class(about["encoder"])
    except ValueError as error:
        raise ErasmoError(
            f"Got vectors of the encoder {about['encoder']!r}, which is not installed",
            expected="the package that registers it",
            fix="install it, or set another `encoder`",
        ) from error
    now = settings.encoder.model_dump(include=set(known.aside)) if isinstance(settings.encoder, known) else {}
    try:
        return known.model_validate({**about["options"], **now})
    except ValidationError as error:
        raise ErasmoError(
            f"Got vectors of the encoder {about['encoder']}, which may not be used now: {error.errors()[0]['msg']}",
            expected="`encoder` in the dataset as it was then",
            fix="run the dataset again",
        ) from error


def _check(folder: Path) -> None:
    file, fix = folder / MANIFEST, "run again with --retrain"
    try:
        files = dict(json.loads(file.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ErasmoError(
            f"Got no fitted encoder in {folder}", expected=f"a folder with {MANIFEST}", fix=fix
        ) from error
    if name := damaged(folder, files):
        raise ErasmoError(
            f"Got {folder / name} other than it was written", expected=f"the checksum in {MANIFEST}", fix=fix
        )
