import json
import pickle
import shutil

import numpy as np
import pytest
from safetensors.numpy import save

from netpredict.errors import ArtefactError
from netpredict.learn import registry
from netpredict.learn.registry import MANIFEST, WEIGHTS, Trained, load_artefact, save_artefact
from netpredict.types import TrainingReport
from tests.learn.noisy import FEATURES, OUTPUT

TENSORS = {"head.kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "head.bias": np.zeros(3, np.float32)}


def trained(**changes):
    report = TrainingReport(2, 1.5, [0.2, 0.1], [0.3, float("nan")], {"skill": 0.5})
    given = {
        "predictor": "gru",
        "options": {"units": 3, "learning_rate": 0.003},
        "features": FEATURES,
        "output": OUTPUT,
        "weights": TENSORS,
        "report": report,
        "window_us": (0, 10),
        "trained_at_us": 1_700_000_000_000_000,
        "seed": 1,
    }
    return Trained(**{**given, **changes})


@pytest.fixture
def folder(tmp_path):
    return save_artefact(tmp_path / "models" / "one", trained()).folder


def test_what_was_saved_is_loaded(folder):
    artefact = load_artefact(folder)
    np.testing.assert_equal(dict(artefact.weights), TENSORS)
    assert artefact.manifest.identity.predictor == "gru"
    assert artefact.manifest.identity.features == FEATURES
    assert artefact.manifest.identity.output == OUTPUT
    assert artefact.manifest.identity.options == {"units": 3, "learning_rate": 0.003}
    assert artefact.manifest.validation_loss == [0.3, None]
    assert artefact.version == artefact.manifest.version
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, WEIGHTS]
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_the_version_does_not_hang_on_when_or_how_fast_it_was_trained(tmp_path, folder):
    version = load_artefact(folder).version
    slower = TrainingReport(2, 99.0, [0.2, 0.1], [0.3, float("nan")], {"skill": 0.5})
    again = save_artefact(tmp_path / "two", trained(trained_at_us=5, report=slower))
    assert again.version == version
    assert save_artefact(tmp_path / "three", trained(seed=2)).version != version
    other = {**TENSORS, "head.bias": np.ones(3, np.float32)}
    assert save_artefact(tmp_path / "four", trained(weights=other)).version != version


def test_a_version_is_never_written_over(folder):
    assert save_artefact(folder, trained(trained_at_us=7)).manifest.trained_at_us != 7
    with pytest.raises(ArtefactError, match="already holds"):
        save_artefact(folder, trained(seed=2))


def test_a_failed_save_leaves_nothing(tmp_path):
    def fail(draft):
        raise OSError("disk full")

    with pytest.raises(ArtefactError, match="disk full"):
        save_artefact(tmp_path / "models" / "one", trained(), fail)
    assert list((tmp_path / "models").iterdir()) == []


def test_another_version_than_the_expected_one_is_refused(folder):
    assert load_artefact(folder, load_artefact(folder).version)
    with pytest.raises(ArtefactError, match="not 000000000000"):
        load_artefact(folder, "000000000000")


def test_weights_that_were_truncated_or_changed_are_refused(folder):
    blob = (folder / WEIGHTS).read_bytes()
    for spoilt in (blob[:-1], b"", blob[:-1] + bytes([blob[-1] ^ 1]), blob + b"\0", pickle.dumps({"a": 1})):
        (folder / WEIGHTS).write_bytes(spoilt)
        with pytest.raises(ArtefactError):
            load_artefact(folder)


def test_weights_of_another_artefact_are_refused(tmp_path, folder):
    other = {**TENSORS, "head.bias": np.ones(3, np.float32)}
    second = save_artefact(tmp_path / "two", trained(weights=other)).folder
    shutil.copy(second / WEIGHTS, folder / WEIGHTS)
    with pytest.raises(ArtefactError, match="SHA-256"):
        load_artefact(folder)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_a_missing_file_a_link_and_a_fifo_are_refused(tmp_path, folder, name):
    elsewhere = shutil.move(folder / name, tmp_path / name)
    with pytest.raises(ArtefactError, match="cannot read"):
        load_artefact(folder)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(ArtefactError, match="cannot read"):
        load_artefact(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(ArtefactError):
        load_artefact(folder)


def test_a_manifest_that_was_edited_is_refused(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    edits = [
        lambda m: m["identity"].update(seed=5),
        lambda m: m["identity"]["scores"].update(skill=0.99),
        lambda m: m.update(schema="netpredict.artefact/2"),
        lambda m: m.update(extra=1),
        lambda m: m["identity"].pop("weights_sha256"),
        lambda m: m["identity"]["tensors"].pop("head.bias"),
    ]
    for edit in edits:
        spoilt = json.loads(json.dumps(manifest))
        edit(spoilt)
        (folder / MANIFEST).write_text(json.dumps(spoilt))
        with pytest.raises(ArtefactError):
            load_artefact(folder)
    for raw in (b"", b"\xff\xfe", b"[" * 100_000, b"null", b"{}"):
        (folder / MANIFEST).write_bytes(raw)
        with pytest.raises(ArtefactError):
            load_artefact(folder)


def test_files_beyond_the_size_limits_are_refused(folder, monkeypatch):
    monkeypatch.setattr(registry, "WEIGHTS_MAX_BYTES", 10)
    with pytest.raises(ArtefactError, match="larger than 10"):
        load_artefact(folder)


def test_a_consistent_artefact_whose_tensors_differ_from_its_list_is_refused(tmp_path, monkeypatch):
    swapped = {**TENSORS, "head.kernel": TENSORS["head.kernel"].T.copy()}
    monkeypatch.setattr(registry, "bytes_of", lambda _: save(swapped))
    with pytest.raises(ArtefactError, match="differ in the tensors"):
        save_artefact(tmp_path / "one", trained())


def test_the_registry_needs_no_tensorflow():
    import subprocess
    import sys

    code = "import sys, netpredict.learn.child, netpredict.learn.train; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
