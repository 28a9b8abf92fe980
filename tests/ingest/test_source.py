from netpredict.ingest.source import AssignmentChange, Gap, MemoryLog, MemorySource
from netpredict.types import TopicPartition

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


def filled(records=10, partitions=2):
    log = MemoryLog({"t": partitions})
    for number in range(records):
        log.append_to(TopicPartition("t", number % partitions), b"k", b"%d" % number, 1000 + number)
    return log


def drained(source):
    got = {}
    while polled := source.poll(0):
        for part in polled:
            got.setdefault(part.topic_partition, []).extend(record.offset for record in part.records)
    return got


def test_equal_keys_share_a_partition_and_offsets_rise():
    log = MemoryLog({"t": 4})
    places = [log.append("t", key, b"", 0) for key in (b"a", b"b", b"a", None, None)]
    assert places[0][0] == places[2][0]
    assert places[0][1] + 1 == places[2][1]
    assert places[3][0] == places[4][0]


def test_nothing_comes_before_seek():
    source = MemorySource(filled())
    assert source.changes() == AssignmentChange(assigned=(T0, T1))
    assert not source.changes()
    assert source.poll(0) == []
    source.seek(T0, None)
    assert drained(source) == {T0: [0, 1, 2, 3, 4]}


def test_all_partitions_get_their_turn_and_no_poll_is_too_large():
    source = MemorySource(filled(20), poll_records_max=3)
    for topic_partition in (T0, T1):
        source.seek(topic_partition, None)
    first, second = source.poll(0), source.poll(0)
    assert {part.topic_partition for part in (*first, *second)} == {T0, T1}
    assert all(sum(len(part.records) for part in polled) <= 3 for polled in (first, second))
    seen = {T0: 0, T1: 0}
    for part in (*first, *second):
        seen[part.topic_partition] += len(part.records)
        assert part.next_offset == part.records[-1].offset + 1
    rest = drained(source)
    assert {key: seen[key] + len(rest[key]) for key in seen} == {T0: 10, T1: 10}


def test_pause_and_resume():
    source = MemorySource(filled())
    source.seek(T0, 3)
    source.pause()
    assert source.poll(0) == []
    source.resume()
    assert drained(source) == {T0: [3, 4]}


def test_seek_below_what_is_kept_gives_the_first_offset():
    log = filled()
    log.trim(T0, 2)
    assert (log.first(T0), log.end(T0)) == (2, 5)
    source = MemorySource(log)
    assert source.seek(T0, 0) == 2
    assert source.seek(T0, None) == 2
    assert source.seek(T0, 4) == 4
    assert source.gaps() == []


def test_what_is_trimmed_under_a_reader_is_told():
    log = filled(20)
    source = MemorySource(log, poll_records_max=2)
    source.seek(T0, None)
    source.poll(0)
    log.trim(T0, 6)
    assert drained(source) == {T0: [6, 7, 8, 9]}
    assert source.gaps() == [Gap(T0, 2, 6, "offset_out_of_range")]
    assert source.gaps() == []


def test_trim_never_goes_beyond_the_end():
    log = filled()
    log.trim(T0, 99)
    assert (log.first(T0), log.end(T0)) == (5, 5)
    assert log.append_to(T0, None, None, 0) == 5


def test_a_rebalance_takes_and_gives():
    source = MemorySource(filled(), topic_partitions=[T0])
    source.changes()
    source.seek(T0, None)
    source.reassign(AssignmentChange(revoked=(T0,), assigned=(T1,)))
    assert source.changes() == AssignmentChange(revoked=(T0,), assigned=(T1,))
    assert source.poll(0) == []
    source.seek(T1, 4)
    assert drained(source) == {T1: [4]}
    assert source.end_offsets() == {T1: 5}
