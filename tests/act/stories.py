"""What ``netpredict why`` must be able to tell of every action, whatever became of it."""

from __future__ import annotations

from typing import Any

from netpredict.act.guards import Reason
from netpredict.act.runner import UNVERIFIED, GaveUp
from netpredict.types import Quality

BASIS = {"model", "source", "quality", "observed", "levels", "forecast"}
READ_BACK = {"verified", "not_verified", "logged", "mismatch", UNVERIFIED}
ALWAYS = {
    *("shadow", "expired", "disarmed", "holdout", "superseded", "taken_back", "blackout", "quality", "deviation"),
    "lease",
}


def assert_whole(story: dict[str, Any]) -> None:
    """Inputs, forecast, rule, guards, reply, read-back, a person's verdict, effect and reversal, each with its time."""
    assert_reasoned(story["why"])
    if story["mode"] == "shadow":
        assert story["outcomes"] == story["reversals"] == []
        assert story["effect"] is None
    else:
        assert story["outcomes"], "no actuator was to get it"
    for outcome in story["outcomes"]:
        if outcome["kind"] is not None:
            _assert_settled(outcome)
    if approval := story["approval"]:
        assert story["mode"] == "assist"
        assert approval["verdict"] in ("approve", "reject")
        assert all(approval[name] for name in ("who", "at_us"))
    if effect := story["effect"]:
        assert {"kpi", "before_mean", "after_mean", "verdict", "at_us"} <= effect.keys()
        assert effect["verdict"] in ("kept", "worse", "unknown")
        assert any(outcome["kind"] == "applied" for outcome in story["outcomes"])
    sent = {outcome["actuator"] for outcome in story["outcomes"] if outcome["attempts"] or outcome["detail"]}
    for reversal in story["reversals"]:
        assert reversal["actuator"] in sent
        assert all(reversal[name] for name in ("cause", "who", "begun_us", "kind", "reason", "at_us"))


def assert_reasoned(why: dict[str, Any]) -> None:
    """Rule, inputs with their quality, model, and each forecast with its interval at every lead that was read."""
    assert why["rule"]
    basis = why["basis"]
    assert basis.keys() >= BASIS
    if "window_until_us" in why:  # a policy: it sees what was, no forecast
        assert why["window_from_us"] < why["window_until_us"]
        assert basis["observed"]
        return
    assert basis["source"] in ("model", "seasonal", "naive")
    assert basis["model"] or basis["source"] != "model"
    assert Quality(basis["quality"]) is not None
    assert basis["observed"].keys() or basis["forecast"].keys()
    levels = basis["levels"]
    assert len(levels) >= 2, "no interval"
    assert levels == sorted(levels)
    for leads in basis["forecast"].values():
        assert leads
        for values in leads:
            assert len(values) == len(levels)
            known = [value for value in values if value is not None]
            assert known == sorted(known)


def _assert_settled(outcome: dict[str, Any]) -> None:
    assert outcome["at_us"]
    assert outcome["attempts"] is not None
    checks = outcome["checks"]
    assert checks is not None, "nobody knows what the guards said"
    if outcome["kind"] == "skipped":
        assert outcome["reason"] in set(Reason)
        assert checks["refused"] == outcome["reason"]
        assert checks["said"]
        return
    assert "refused" not in checks
    assert set(checks["passed"]) >= ALWAYS
    assert outcome["attempts"] >= 1
    if outcome["kind"] == "applied":
        assert outcome["reason"] in READ_BACK
        assert outcome["reply"]
    else:
        assert outcome["kind"] == "failed"
        assert outcome["reason"] in {*GaveUp, "mismatch"}
        assert outcome["detail"] or outcome["reply"]
