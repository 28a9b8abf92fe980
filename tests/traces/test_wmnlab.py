from collections import Counter

import msgspec
import pytest

from netpredict.errors import DataError
from netpredict.traces import wmnlab

HEADER = (
    "Timestamp,lat,long,gpsspeed,LTE_HO,MN_HO,eNB_to_ENDC,gNB_Rel,gNB_HO,RLF,SCG_RLF,num_of_neis,RSRP,RSRQ,RSRP1,RSRQ1,"
    "RSRP2,RSRQ2,nr-RSRP,nr-RSRQ,nr-RSRP1,nr-RSRQ1,nr-RSRP2,nr-RSRQ2,dl-loss,ul-loss,dl-exc-lat,ul-exc-lat,dl-latency,"
    "ul-latency"
)
LEVELS = "-84.5,-12.5,-93.0,-20.0,-93.5,-19.5,-77.5,-13.0,-85.0,-17.5,-87.0,-17.0"


def row(second="54", levels=LEVELS, place="24.99,121.55,0.24", events="0,0,0,0,0,0,0") -> str:
    return f"2023-03-26 16:36:{second},{place},{events},3,{levels},0,0,0,0,0.01,0.007"


@pytest.fixture
def one_trace(write_zip):
    def read(*rows: str, header=HEADER):
        folder = write_zip(wmnlab.ARCHIVE, {"2023-03-26_qc00_#01_All.csv": "\n".join((header, *rows)) + "\n"})
        (trace,) = wmnlab.read(folder)
        return trace

    return read


def decoded(trace) -> list[dict]:
    return [msgspec.json.decode(message.value) for message in wmnlab.messages(trace)]


def test_a_row_becomes_one_report_with_every_neighbour_approximate(one_trace):
    (report,) = decoded(one_trace(row()))

    assert report["event_time_us"] == 1679819814000000
    assert (report["ue_id"], report["radio_cell_id"]) == ("wmn-qc00", "wmn-qc00-lte")
    assert (report["rsrp_dbm"], report["rsrq_db"]) == (-84.5, -12.5)
    assert [(n["radio_cell_id"], n["rsrp_dbm"], n["rsrq_db"]) for n in report["neighbours"]] == [
        ("wmn-qc00-lte-nbr1", -93.0, -20.0),
        ("wmn-qc00-lte-nbr2", -93.5, -19.5),
        ("wmn-qc00-nr", -77.5, -13.0),
        ("wmn-qc00-nr-nbr1", -85.0, -17.5),
        ("wmn-qc00-nr-nbr2", -87.0, -17.0),
    ]
    assert all(n["approximate"] for n in report["neighbours"])


def test_zero_is_not_measured(one_trace):
    trace = one_trace(row(levels="0,0,-93.0,-20.0,0,0,0,0,0,0,0,0"))

    (report,) = decoded(trace)

    assert "rsrp_dbm" not in report
    assert [n["radio_cell_id"] for n in report["neighbours"]] == ["wmn-qc00-lte-nbr1"]
    assert trace.repairs["sentinel:RSRP"] == trace.repairs["sentinel:nr-RSRQ2"] == 1


def test_a_second_in_which_nothing_was_measured_gives_no_report(one_trace):
    assert decoded(one_trace(row(levels=",".join("0" * 12)), row("55"))) != []
    assert len(decoded(one_trace(row(levels=",".join("0" * 12)), row("55")))) == 1


def test_a_row_of_49_fields_is_dropped_and_counted(one_trace):
    merged_row = row()[:-30] + row("53")

    trace = one_trace(row(), merged_row, row("55"))

    assert len(trace.frame) == 2
    assert trace.repairs == {"unreadable_row": 1}


def test_padded_names_and_values_and_missing_places_read_alike(one_trace):
    padded = one_trace(row(place="- ,- ,- ").replace(",", " ,  "), header=HEADER.replace(",", "   ,"))

    assert decoded(padded) == decoded(one_trace(row()))
    assert padded.repairs == {}


def test_handovers_and_failures_are_columns_of_the_frame(one_trace):
    frame = one_trace(row(events="1,2,0,0,3,4,5")).frame

    counts = frame[["lte_handovers", "mn_handovers", "nr_handovers", "rlf", "scg_rlf"]]
    assert counts.to_numpy().tolist() == [[1, 2, 3, 4, 5]]


def test_the_example_file_is_skipped_only_beside_its_original(write_zip):
    example, original = "2023-03-26_qc00-example_dataset.csv", "2023-03-26_qc00_#01_All.csv"
    text = HEADER + "\n" + row() + "\n"

    both = list(wmnlab.read(write_zip(wmnlab.ARCHIVE, {example: text, original: text})))
    alone = list(wmnlab.read(write_zip(wmnlab.ARCHIVE, {example: text})))

    assert [(trace.name, trace.noted) for trace in both] == [("2023-03-26_qc00_#01_All", {"skipped_copy": 1})]
    assert len(alone) == 1


def test_an_absent_archive_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=wmnlab.ARCHIVE):
        list(wmnlab.read(tmp_path))


@pytest.fixture(scope="module")
def published(data_root):
    return list(wmnlab.read(data_root / "wmnlab"))


def test_the_published_traces_have_the_known_counts(published):
    repairs, noted = Counter(), Counter()
    for trace in published:
        repairs.update(trace.repairs)
        noted.update(trace.noted)

    assert len(published) + noted["skipped_copy"] == 258
    assert repairs["unreadable_row"] == 1
    assert sum(trace.duplicate_stamps() for trace in published) == 0
    assert len({ue for trace in published for ue in trace.frame["ue_id"]}) == 12
    assert set(repairs) == {"unreadable_row"} | {
        f"sentinel:{prefix}{kpi}{rank}" for prefix in ("", "nr-") for kpi in ("RSRP", "RSRQ") for rank in ("", 1, 2)
    }


def test_about_13_percent_of_the_published_rows_have_no_lte_neighbour(published):
    without = sum(trace.frame["nbr1_rsrp_dbm"].isna().sum() for trace in published)

    assert without / sum(len(trace.frame) for trace in published) == pytest.approx(0.13, abs=0.005)


def test_published_events_are_those_of_the_data_description_less_the_copy(published):
    rows = {name: sum(int((trace.frame[name] > 0).sum()) for trace in published) for name in wmnlab.EVENTS}

    # The description counts the rows of all 258 files.
    described = {"lte_handovers": 1437, "mn_handovers": 2750, "nr_handovers": 3074, "rlf": 430, "scg_rlf": 55}
    assert all(0 <= described[name] - rows[name] <= 20 for name in described), rows


def test_every_published_second_gives_one_report_and_no_level_is_zero(published):
    for trace in published[:20]:
        reports = decoded(trace)
        assert len(reports) == len(trace.frame)
        assert all(n["rsrp_dbm"] < 0 for report in reports for n in report.get("neighbours", []))
