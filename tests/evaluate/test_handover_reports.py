"""What the handover evaluation teaches by is what the daemon reads from messages."""

import msgspec
import numpy as np

from netpredict.evaluate.handover_labels import REPORTED, REPORTED_DB, reports
from netpredict.ingest.messages import Neighbour, Rsrp
from netpredict.ingest.source import MemoryRecord
from netpredict.radio.link_failure import sinr_db
from netpredict.traces.ns3_uma import RADIO_CELLS
from netpredict_plugins.decoders.json import JsonDecoder, JsonOptions


def test_the_decoder_gives_the_columns_of_the_evaluation():
    measured_dbm = np.random.default_rng(5).uniform(-110, -70, (3, 4, RADIO_CELLS)).round(2).astype(np.float32)
    sinr = sinr_db(measured_dbm).round(2)
    options = JsonOptions(site_pattern="site-([0-9]+)/[0-9]", reported_db=REPORTED_DB)
    decoder = JsonDecoder(options, "rsrp", ["ue_id", "radio_cell_id"], REPORTED)
    for ue, period in np.ndindex(measured_dbm.shape[:2]):
        level = measured_dbm[ue, period]
        (cells,) = np.nonzero(level > level.max() - REPORTED_DB)
        first, *near = (
            Neighbour(f"site-{cell // 3}/{cell % 3}", float(level[cell]), sinr_db=float(sinr[ue, period, cell]))
            for cell in cells
        )
        message = Rsrp(
            "netpredict.rsrp/1", first.radio_cell_id, 1, "u", first.rsrp_dbm, sinr_db=first.sinr_db, neighbours=near
        )
        record = MemoryRecord(0, 0, b"u", msgspec.json.encode(message))
        decoded = decoder.decode([record]).values
        np.testing.assert_allclose(decoded, reports(measured_dbm)[ue, period, cells], atol=0.0051)
