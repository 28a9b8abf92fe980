"""A network that can be told what to do: what it is told changes what it reports, and nothing else."""

import numpy as np
import pytest

from netpredict.traces.controlled import Account, ControlledConfig, ControlledNetwork, Orders, run_plain, tuned
from netpredict.traces.plain_rules import QuotaRule, RuleSettings
from netpredict.traces.simulator import Snapshot

QUIET = ControlledConfig(quiet_s=1800, session_s=0)
SESSION = ControlledConfig(quiet_s=0, session_s=60)
RULES = RuleSettings()
PRB_USE = 2


def run(config: ControlledConfig, orders: Orders) -> tuple[ControlledNetwork, list[Snapshot]]:
    network = ControlledNetwork(config, RULES)
    return network, [network.step(second, orders) for second in network.seconds()]


def traffic(snapshots: list[Snapshot]) -> np.ndarray:
    return np.stack([each.traffic for each in snapshots if each.traffic is not None])


def names(config: ControlledConfig) -> ControlledNetwork:
    return ControlledNetwork(config, RULES)


def test_the_same_seed_gives_the_same_run() -> None:
    assert run_plain(SESSION, RULES) == run_plain(SESSION, RULES)


def test_demand_and_radio_are_the_same_whatever_is_told() -> None:
    told = Orders(dict.fromkeys(names(QUIET).radio_cell_ids, 10.0), {}, {})
    plain, ours = run(QUIET, Orders())[0].account, run(QUIET, told)[0].account
    assert np.array_equal(plain.columns("prb")["demand"], ours.columns("prb")["demand"])
    mcs = Orders(mcs=dict.fromkeys(names(SESSION).ue_ids, 0))
    for one, other in zip(run(SESSION, Orders())[1], run(SESSION, mcs)[1], strict=True):
        assert one.reports is not None
        assert other.reports is not None
        assert np.array_equal(one.reports.rsrp_dbm, other.reports.rsrp_dbm)


def test_a_quota_bounds_what_its_radio_cell_reports_and_only_that() -> None:
    network = names(QUIET)
    busy = int(traffic(run(QUIET, Orders())[1])[:, :, PRB_USE].mean(axis=0).argmax())
    told, snapshots = run(QUIET, Orders({network.radio_cell_ids[busy]: 12.0}))
    plain = traffic(run(QUIET, Orders())[1])[:, :, PRB_USE]
    ours = traffic(snapshots)[:, :, PRB_USE]
    assert ours[:, busy].max() == 12.0 < plain[:, busy].max()
    assert np.array_equal(np.delete(ours, busy, axis=1), np.delete(plain, busy, axis=1))
    assert told.account.kpis()["unserved_prb_percent"] > run_plain(QUIET, RULES).kpis()["unserved_prb_percent"]


def test_what_a_sleeping_capacity_cell_carried_goes_to_the_one_that_covers_for_it() -> None:
    network = names(QUIET)
    capacity, covering = next(iter(network.capacity_cells.items()))
    place = network.radio_cell_ids.index(covering)
    every = dict.fromkeys(network.radio_cell_ids, 100.0)
    awake, asleep = (run(QUIET, Orders(every, {capacity: sleeps})) for sleeps in (False, True))
    both = [traffic(snapshots)[:, place, PRB_USE] for _, snapshots in (awake, asleep)]
    assert np.allclose(np.minimum(2 * both[0], 100.0), both[1], atol=0.11)
    over = [network.account.kpis()["over_provisioned_prb_percent"] for network, _ in (awake, asleep)]
    assert over[1] < over[0]


def test_a_higher_mcs_loses_more_blocks() -> None:
    bler = [
        run(SESSION, Orders(mcs=dict.fromkeys(names(SESSION).ue_ids, index)))[0].account.kpis()["bler_ratio"]
        for index in (0, 10, 28)
    ]
    assert bler[0] < bler[1] < bler[2]
    assert bler[2] > 0.9


def test_a_ue_goes_where_it_is_told_unless_another_radio_cell_serves_it_by_now() -> None:
    for named_source, moves in ((True, True), (False, False)):
        network = ControlledNetwork(SESSION, RuleSettings(a3_offset_db=40.0))
        first = network.step(0, Orders())
        assert first.reports is not None
        source, target, other = (network.radio_cell_ids[place] for place in first.reports.radio_cell[0, :3])
        told = (source if named_source else other, target)
        second = network.step(1, Orders(handovers={network.ue_ids[0]: told}))
        assert second.reports is not None
        assert network.radio_cell_ids[second.reports.radio_cell[0, 0]] == (target if moves else source)
        assert network.account.links[1][4] == moves


def test_a_static_network_has_all_prbs_and_never_sleeps() -> None:
    columns = run_plain(QUIET, RuleSettings(quota_periods=0)).columns("prb")
    assert set(columns["provisioned"]) == {100 + 100 * 7 / 21}
    assert not columns["changes"].any()


def test_the_plain_quota_follows_the_highest_use_of_its_window_when_it_has_stayed() -> None:
    rule = QuotaRule(RuleSettings(quota_periods=2, headroom_percent=4.0), 1)
    assert rule.quota_percent() == 100
    quotas = []
    for used in [10.0] + [30.5] * 11 + [11.0] * 10 + [99.0] * 10:
        rule.hear(np.array([used]))
        quotas.append(float(rule.quota_percent()[0]))
    assert quotas == [14.0] * 10 + [36.0] * 10 + [16.0] * 10 + [100.0] * 2


def test_the_plain_rule_puts_to_sleep_below_one_level_and_wakes_above_another() -> None:
    rule = QuotaRule(RuleSettings(quota_periods=1), 1)
    asleep = []
    for used in [10.0] * 10 + [45.0, 51.0, 10.0]:
        rule.hear(np.array([used]))
        asleep.append(bool(rule.asleep()[0]))
    assert asleep == [False] * 8 + [True] * 3 + [False] * 2


def test_the_rules_are_tuned_on_another_network() -> None:
    config = ControlledConfig(quiet_s=600, session_s=60)
    rules = tuned(config)
    assert rules == tuned(config)
    assert rules.headroom_percent in (2.0, 4.0, 6.0, 10.0)


def test_an_account_of_nothing_is_told_as_such() -> None:
    assert set(Account(ues=0).kpis().values()) == {0.0}


@pytest.mark.parametrize("seed", [1, 2])
def test_outage_counts_ue_seconds_below_qout(seed: int) -> None:
    network = ControlledNetwork(ControlledConfig(seed=seed, quiet_s=0, session_s=120), RULES)
    below = 0
    for second in network.seconds():
        reports = network.step(second, Orders()).reports
        assert reports is not None
        below += int((reports.sinr_db < -8.0).sum())
    links = network.account.columns("links")
    assert below <= links["outage"].sum() <= below + links["failed"].sum()
