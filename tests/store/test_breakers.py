from __future__ import annotations

from netpredict.store.breakers import SqlBreakers
from netpredict.store.commit import Commit
from netpredict.store.outbox import SqlOutbox
from netpredict.store.sql import SqlStore
from netpredict.types import ArmState, Breaker, Evidence, Lease, Since, Taken
from tests.store.store_builders import STREAM, firing, full_commit, lane_commit, run, score


def test_evidence_sums_the_newest_buckets_at_the_leads_that_count(store: SqlStore) -> None:
    lane, model_id = run(store, slots=1)  # bucket 1: 4 rows
    scores = [score(model_id, bucket=b, source=s, lead_steps=d) for b in (7, 8, 9) for s in (0, 2) for d in (1, 2)]
    store.commit(Commit([lane_commit(lane, 10, 20, scores=[*scores, score(model_id, bucket=9, kpi="ul")])]))
    breakers = SqlBreakers(store)
    of_two = Evidence("dl", 16, 80, 160, 120, 16, 16, bucket=9)
    assert breakers.evidence(STREAM, ["gru"], ["dl"], 1, 2, None) == [of_two]
    assert breakers.evidence(STREAM, ["gru"], ["dl"], 1, 2, 8) == [of_two._replace(bucket=8)]
    assert breakers.evidence(STREAM, ["lstm"], ["dl"], 1, 2, None) == []
    assert [sums.kpi for sums in breakers.evidence(STREAM, ["gru"], ["dl", "ul"], 9, 1, None)] == ["dl", "ul"]
    assert breakers.evidence("nothing", ["gru"], ["dl"], 1, 2, None) == []


def test_a_stream_is_in_the_bucket_of_its_most_advanced_topic_partition(store: SqlStore) -> None:
    lane, _ = run(store, slots=1)
    breakers = SqlBreakers(store)
    store.commit(Commit([lane_commit(lane, 10, 20, state='{"watermark":7}')]))
    assert breakers.reached(STREAM) is None
    store.commit(Commit([lane_commit(lane, 20, 30, state='{"watermark":7,"bucket":12}')]))
    assert (breakers.reached(STREAM), breakers.reached("nothing")) == (12, None)


def test_a_disarmed_hook_takes_nothing_in_its_group_and_guards_are_told(store: SqlStore) -> None:
    lane, model_id = run(store, slots=1)
    fired = [(firing(7, group="lab"), ("log",)), (firing(8, group=""), ("log",))]
    store.commit(Commit([full_commit(lane, model_id, 2, firings=fired)]))
    breakers, outbox = SqlBreakers(store), SqlOutbox(store)
    opened = Breaker("bandwidth", "lab", ArmState.NOT_MEET, "skill -1", 4, -1.0, None, 5, 6, heard_bucket=7)
    breakers.put(opened._replace(state=ArmState.MEET))
    breakers.put(opened)
    assert breakers.states() == [opened]
    of_lab, of_rest = outbox.pending(10)[-2:]
    assert outbox.standing([of_lab], Since(0, 0, 0), []).disarmed == {("bandwidth", "lab"): "skill -1"}
    lease = Lease("bandwidth", "firing-7", 0, 9)
    assert outbox.take(of_lab, lease, None, 1) is Taken.DISARMED
    assert outbox.take(of_rest, lease, None, 1) is Taken.YES
