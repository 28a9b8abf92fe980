"""What holds for the whole source and every output: nothing unpickles, no shell, no secret and no control character."""

from __future__ import annotations

import ast
import io
import json
import logging
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from netpredict.cli.app import app
from netpredict.cli.terminal import print_fields, print_json, print_table, say
from netpredict.config import Config, KafkaConfig, parse_config
from netpredict.credentials import CREDENTIALS, Secret, credential_path, read_secret
from netpredict.errors import ConfigError, PluginError
from netpredict.operate.logs import configure_logs
from netpredict.plugins import load
from tests.integration.daemon_process import toml

ROOT = Path(__file__).parents[1]
PASSWORD = "hunter2-very-secret"

# -- the source ------------------------------------------------------------------------------------------------------

UNPICKLING = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "multiprocessing", "jsonpickle"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput", "os.spawnl"),
    *("subprocess.getstatusoutput", "yaml.load", "torch.load", "keras.models.load_model", "load_model"),
    *("asyncio.create_subprocess_shell", "executescript", "tempfile.mktemp"),
}


def dangers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{node.lineno} imports {name}" for name in names if name.partition(".")[0] in UNPICKLING)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS or called.rpartition(".")[2] in {"executescript", "load_model", "mktemp"}:
                yield f"{node.lineno} calls {called}"
            for keyword in node.keywords:
                on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if keyword.arg == "shell" or (keyword.arg == "allow_pickle" and on):
                    yield f"{node.lineno} gives {keyword.arg}"
            loads = called in {"np.load", "numpy.load"}
            if loads and not any(keyword.arg == "allow_pickle" for keyword in node.keywords):
                yield f"{node.lineno} {called} without allow_pickle=False"


def shipped() -> list[Path]:
    files = [file for top in ("netpredict", "plugins", "alembic") for file in (ROOT / top).rglob("*.py")]
    return [file for file in files if not file.name.startswith("test_")]


def test_nothing_that_ships_unpickles_or_asks_a_shell() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{danger}" for file in shipped() for danger in dangers(ast.parse(file.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from multiprocessing import Pool",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import subprocess\nsubprocess.run('x', shell=maybe)",
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import os\nos.system('x')",
        "connection.executescript(text)",
        "eval('1')",
    ],
)
def test_the_search_finds_what_it_should(source: str) -> None:
    assert list(dangers(ast.parse(source)))


# -- defaults --------------------------------------------------------------------------------------------------------


def test_the_defaults_listen_and_call_on_loopback_only() -> None:
    config = Config()
    assert config.http.host == "127.0.0.1"
    assert all(server.startswith("127.0.0.1:") for server in config.kafka.bootstrap_servers)
    assert not config.publish.enabled


@pytest.mark.parametrize("name", ["os:system", "../naive", "netpredict_plugins.predictors.naive", "naive\x00", ""])
def test_only_the_name_of_an_installed_plugin_loads_anything(name: str) -> None:
    with pytest.raises(PluginError):
        load("predictors", name)


def test_only_configured_plugins_are_imported() -> None:
    script = (
        "import sys; from netpredict.plugins import load; load('predictors', 'naive'); load('actuators', 'log');"
        "print(sorted(name for name in sys.modules if name.startswith('netpredict_plugins.') and name.count('.') == 2))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "['netpredict_plugins.actuators.log', 'netpredict_plugins.predictors.naive']"


# -- secrets ---------------------------------------------------------------------------------------------------------

TRUSTED = {"security_protocol": "SASL_SSL", "sasl_username": "me", "sasl_password_file": "/p"}


@pytest.mark.parametrize(
    ("kafka", "key"),
    [
        ({"security_protocol": "SASL_SSL", "sasl_username": "me"}, "sasl_password_file"),
        ({"security_protocol": "SASL_SSL", "sasl_password_file": "/p"}, "sasl_username"),
        ({"sasl_username": "me"}, "sasl_username"),
        ({"ssl_ca_file": "/ca"}, "ssl_ca_file"),
        (TRUSTED | {"ssl_cert_file": "/c"}, "ssl_cert_file"),
        (TRUSTED | {"ssl_key_password_file": "/c"}, "ssl_key_password_file"),
        (TRUSTED | {"security_protocol": "SASL_PLAINTEXT", "bootstrap_servers": ["h:1"]}, "security_protocol"),
        (TRUSTED | {"sasl_password": PASSWORD}, "sasl_password"),
        (TRUSTED | {"sasl_mechanism": "GSSAPI"}, "sasl_mechanism"),
    ],
)
def test_a_config_that_would_not_do_what_it_says_is_refused(kafka: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        parse_config({"kafka": kafka})
    assert PASSWORD not in str(caught.value)


def test_a_password_in_clear_beyond_loopback_can_be_allowed() -> None:
    plain = TRUSTED | {"security_protocol": "SASL_PLAINTEXT"}
    for more in ({}, {"bootstrap_servers": ["[::1]:1"]}, {"bootstrap_servers": ["h:1"], "sasl_in_clear": True}):
        parse_config({"kafka": plain | more})


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o644, 0o606, 0o601])
def test_a_secret_comes_from_a_file_that_others_cannot_open(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{PASSWORD}\r\n")
    file.chmod(mode)
    if mode & 0o007:
        with pytest.raises(ConfigError, match=r"kafka\.x: .* chmod o="):
            read_secret(str(file), "kafka.x")
    else:
        assert read_secret(str(file), "kafka.x").reveal() == PASSWORD


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"\xff", b"a\x00b", b"x" * 70_000])
def test_what_is_no_secret_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=r"^kafka\.x: ") as caught:
        read_secret(str(file), "kafka.x")
    assert len(str(caught.value)) < 500


def test_a_credential_of_systemd_lies_in_its_folder_and_its_absence_is_told() -> None:
    found = credential_path(f"{CREDENTIALS}kafka", "kafka.x", {"CREDENTIALS_DIRECTORY": "/run/credentials/u"})
    assert found == Path("/run/credentials/u/kafka")
    with pytest.raises(ConfigError, match="LoadCredential="):
        credential_path(f"{CREDENTIALS}kafka", "kafka.x", {})


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret(PASSWORD)
    assert PASSWORD not in f"{secret} {secret!r} {[secret]} {vars(type(secret))}"
    with pytest.raises(TypeError):
        secret.__reduce__()


@pytest.mark.parametrize(
    "words",
    [
        ("db", "current"),
        ("db", "upgrade"),
        ("db", "check"),
        ("models", "list"),
        ("streams",),
        ("models", "promote", "a", "b", "c"),
    ],
)
@pytest.mark.parametrize(
    "url",
    [f"postgresql://me:{PASSWORD}@127.0.0.1:1/x", f"mysql://me:{PASSWORD}@h/x", f"postgresql://me:{PASSWORD}@h:p/"],
)
def test_no_verb_shows_the_password_of_a_store(words: tuple[str, ...], url: str) -> None:
    result = CliRunner().invoke(app, [*words, "--url", url], prog_name="netpredict")
    assert result.exit_code not in (0, 2)
    assert PASSWORD not in result.output + str(result.exception or "")
    assert "Traceback" not in result.output


def test_neither_check_config_nor_the_daemon_shows_a_secret(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    config = {
        "daemon": {"data_dir": str(tmp_path / "data")},
        "kafka": {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_username": "me",
            "sasl_password_file": str(password),
            "bootstrap_servers": ["127.0.0.1:1"],
        },
        "store": {"url": f"postgresql://me:{PASSWORD}@127.0.0.1:1/x"},
        "http": {"enabled": False},
        "streams": {"s": {"topic": "t", "schema": "traffic", "series_by": ["radio_cell_id"], "period_s": 1.0}},
        "predictors": {"naive": {"plugin": "naive"}},
    }
    path = tmp_path / "netpredict.toml"
    text = toml(config).replace(
        "[predictors", 'kpis = ["prb_use_dl_percent"]\nroutes = [{active = "naive"}]\n[predictors'
    )
    path.write_text(text)
    for words in (["check-config", str(path)], ["check-config", str(path), "--json"], ["run", "--config", str(path)]):
        done = subprocess.run(
            [sys.executable, "-m", "netpredict", *words], capture_output=True, text=True, timeout=120, check=False
        )
        assert PASSWORD not in done.stdout + done.stderr
        assert done.returncode == (75 if words[0] == "run" else 0), done.stderr


def test_the_names_of_files_not_their_content_stand_in_a_config() -> None:
    assert not [field for field in KafkaConfig.__struct_fields__ if "password" in field and not field.endswith("_file")]


# -- what a terminal sees --------------------------------------------------------------------------------------------

UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
HOSTILE = st.text(st.characters(exclude_categories=()), max_size=30)
RELAXED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def unsafe(text: str) -> list[str]:
    return [f"{ord(each):#x}" for each in text if each != "\n" and unicodedata.category(each) in UNSAFE]


@RELAXED
@given(rows=st.lists(st.tuples(HOSTILE, HOSTILE), max_size=4), title=HOSTILE, name=HOSTILE)
def test_no_control_character_of_a_table_reaches_the_terminal(
    capsys: pytest.CaptureFixture[str], rows: list[tuple[str, str]], title: str, name: str
) -> None:
    print_table(title, (name, "b"), rows)
    print_fields([(name, title), *rows])
    print_json({"rows": [list(row) for row in rows if "".join(row).isprintable() or encodable("".join(row))]})
    say(title)
    shown = capsys.readouterr()
    assert unsafe(shown.out + shown.err) == []


def encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize("form", ["json", "console"])
@RELAXED
@given(event=HOSTILE, key=HOSTILE, value=HOSTILE)
@example(event="\x7f", key="\x7f\x9b", value="\x7f\ud800\u202e")
def test_no_control_character_of_a_log_line_reaches_the_terminal(form: Any, event: str, key: str, value: str) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    configure_logs(form, out=out)
    structlog.get_logger("x").warning(event, **{f"k{key}": value, "deep": {value: [value]}})
    try:
        raise ValueError(value)
    except ValueError:
        logging.getLogger("library").exception("%s", event)
    text = raw.getvalue().decode("utf-8")
    assert unsafe(text) == []
    if form == "json":
        assert [json.loads(line)["level"] for line in text.splitlines()] == ["warning", "error"]
    else:
        assert sum(not line.startswith((" ", "Traceback", "ValueError")) for line in text.splitlines()) == 2
