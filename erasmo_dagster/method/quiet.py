"""Keeps the model libraries from reporting home and from writing what a user can do nothing about."""

from __future__ import annotations

import os
import sys
import warnings

# Set before the libraries are imported: they read most of these once. What the user has set stays.
ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    # The tokenizer's own threads gain little beside the model, and warn or hang where the process forks.
    "TOKENIZERS_PARALLELISM": "false",
}

# Calls of one library into another.
DEPRECATIONS = (
    r"`is_gradient_checkpointing` is deprecated",  # peft 0.21 asks transformers 5.23
)


def quiet_libraries() -> None:
    """Turn off telemetry, notes and the libraries' own progress bars; cheap, and safe to call again.

    Called before torch, transformers or peft are imported. Errors, and warnings about the user's own settings or
    files, still come through.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:  # the hub warns where its variable and a call disagree
        disable_progress_bars()
    if "transformers" in sys.modules:  # somebody imported it first, with its own defaults
        from transformers.utils import logging

        if os.environ["TRANSFORMERS_VERBOSITY"] == "error":
            logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for message in DEPRECATIONS:
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)
