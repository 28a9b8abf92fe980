"""What is published as the schema of a message is what is decoded and sent."""

from pathlib import Path

import jsonschema
import msgspec
import pytest

from netpredict.cli import schemas
from netpredict.ingest.messages import PUBLISHED
from netpredict.traces.message import SCHEMA_OF
from netpredict.traces.simulator import Simulator, SimulatorConfig
from netpredict.traces.wire import STREAM_KPIS
from tests.cli.conftest import document

SHIPPED = Path(__file__).parents[2] / "deploy" / "schemas"


def test_the_shipped_schemas_are_current() -> None:
    expected = {schemas.schema_file(name): schema for name, schema in schemas.message_schemas().items()}
    shipped = {path.name: msgspec.json.decode(path.read_bytes()) for path in SHIPPED.iterdir()}
    assert shipped == expected, "run: netpredict schemas --output deploy/schemas"


def test_schemas_are_printed_and_written(cli, tmp_path: Path) -> None:
    assert set(document(cli("schemas"))) == {*SCHEMA_OF.values(), *PUBLISHED}
    assert cli("schemas", "--output", tmp_path / "new").exit_code == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in SHIPPED.iterdir()}
    assert cli("schemas", "--output", "/proc/none").exit_code == 1


@pytest.mark.parametrize("stream", STREAM_KPIS)
def test_simulated_messages_fit_their_schema(stream: str) -> None:
    validator = jsonschema.Draft202012Validator(schemas.message_schemas()[SCHEMA_OF[stream]])
    messages = Simulator(SimulatorConfig(radio_cells=3, ues=2)).messages(61)
    values = [msgspec.json.decode(message.value) for message in messages if message.stream == stream]
    assert values
    for value in values:
        validator.validate(value)
    assert not validator.is_valid({"schema": SCHEMA_OF[stream]})
