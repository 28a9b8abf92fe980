"""The trigger: bad in absolute terms and worse than its own baseline, with enough evidence, not twice for the same."""

import pytest

from netpredict.config import LearnConfig
from netpredict.learn.drift import alarms

LEARN = LearnConfig(trigger_buckets=4, trigger_hold=2, trigger_rows_min=100)
NOMINAL = 0.8


def buckets(skills, covered=0.8, first=0, n=50, kpi="cqi"):
    """A bucket for each skill (None = flat truth)."""
    shares = covered if isinstance(covered, list) else [covered] * len(skills)
    return [
        {
            "kpi": kpi,
            "bucket": first + number,
            "n": n,
            "abs_ticks": 0 if skill is None else round(1000 * (1 - skill)),
            "naive_abs_ticks": 0 if skill is None else 1000,
            "spread": n,
            "covered": round(share * n),
        }
        for number, (skill, share) in enumerate(zip(skills, shares, strict=True))
    ]


def found(rows, learn=LEARN, trained=None, since=-1):
    return alarms(rows, learn, NOMINAL, trained or {}, since)


def test_a_version_that_was_good_and_is_bad_alarms_with_its_reason():
    (alarm,) = found(buckets([0.3] * 10 + [-0.2] * 5))
    assert (alarm.measure, alarm.kpi, alarm.now, alarm.baseline) == (
        "skill",
        "cqi",
        pytest.approx(-0.2),
        pytest.approx(0.3),
    )
    assert (alarm.n, alarm.newest_bucket) == (200, 14)
    assert "skill of cqi is -0.200" in alarm.why
    assert alarm.detail()["bound"] == 0.0


def test_bad_in_absolute_terms_alone_is_none():
    assert found(buckets([-0.2] * 20)) == []


def test_worse_than_its_baseline_alone_is_none():
    assert found(buckets([0.6] * 10 + [0.2] * 6)) == []


def test_it_must_hold_and_one_bad_bucket_is_none():
    assert found(buckets([0.3] * 10 + [-0.2] * 3)) == [], "the newest window is bad, the one before is not"
    assert found(buckets([0.3] * 14 + [-0.5])) == []


def test_too_few_forecasts_are_no_evidence():
    assert found(buckets([0.3] * 10 + [-0.2] * 5, n=20)) == []
    assert found(buckets([-0.2] * 4), trained={"skill.cqi": 0.4}) == []


def test_a_young_version_is_measured_by_its_scores_at_training_time():
    young = buckets([-0.2] * 5)
    assert found(young) == []
    (alarm,) = found(young, trained={"skill.cqi": 0.4})
    assert alarm.baseline == 0.4


def test_evidence_of_one_retraining_leads_to_no_other():
    rows = buckets([0.3] * 10 + [-0.2] * 5)
    assert found(rows, since=14) == []
    more = rows + buckets([-0.2] * 5, first=15)
    assert found(more[:-1], since=14) == []
    assert len(found(more, since=14)) == 1


def test_lost_coverage_alarms_though_the_skill_is_good():
    (alarm,) = found(buckets([0.5] * 15, covered=[0.8] * 10 + [0.5] * 5))
    assert (alarm.measure, alarm.now) == ("coverage_off", pytest.approx(0.3))
    assert found(buckets([0.5] * 15, covered=0.5)) == []


def test_flat_truth_is_no_evidence():
    assert found(buckets([0.3] * 10 + [None] * 5)) == []


def test_the_worst_kpi_comes_first_and_it_can_be_turned_off():
    rows = buckets([0.3] * 10 + [-0.2] * 5) + buckets([0.3] * 10 + [-0.9] * 5, kpi="rsrp_dbm")
    assert [alarm.kpi for alarm in found(rows)] == ["rsrp_dbm", "cqi"]
    assert found(rows, learn=LearnConfig(trigger_buckets=0)) == []
