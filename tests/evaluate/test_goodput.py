"""Goodput and block errors of choices, by hand on short traces; rules that see only what was reported."""

import numpy as np
import pytest

from netpredict.evaluate.goodput import (
    Fixed,
    Panel,
    Tally,
    best,
    bounded,
    known,
    walk,
)
from netpredict.evaluate.plain_link import (
    OuterLoop,
    candidates,
    markov_bases,
    markov_table,
    report_bases,
)
from netpredict.radio.link import Olla, advance_olla
from netpredict.radio.tables import cqi_efficiency

NAN = np.nan
EFFICIENCY = cqi_efficiency(1)


def series(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def noisy(steps: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cqi = np.clip(np.round(9 + np.cumsum(rng.normal(0, 1, steps)) % 5 + rng.normal(0, 1, steps)), 0, 15)
    cqi[rng.random(steps) < 0.15] = NAN
    return cqi.astype(np.float32)


def last_report(panel: Panel, delay: int) -> Fixed:
    return Fixed(bounded(panel.flat([known(each, delay) for each in panel.unflat(panel.cqi)]))[:, None])


def test_traces_lie_side_by_side_and_come_back_in_their_order():
    each = [series(1, 2), series(3, 4, 5, 6), series(7), series(8, 9, 10)]
    panel = Panel(each)
    assert panel.cqi[panel.at(0)].tolist() == [3, 8, 1, 7]
    assert panel.cqi[panel.at(3)].tolist() == [6]
    for came, went in zip(panel.unflat(panel.cqi), each, strict=True):
        np.testing.assert_array_equal(came, went)


def test_a_report_is_known_so_many_seconds_later_and_until_the_next():
    np.testing.assert_array_equal(known(series(NAN, 9, NAN, 7), 1), [NAN, NAN, 9, 9])
    np.testing.assert_array_equal(known(series(9, 8), 3), [NAN, NAN])


def test_goodput_and_errors_of_the_last_report_by_hand():
    # known: -, 9, 9, 9, 7, 0; the third second is not measured, the first one has no report yet
    panel = Panel([series(9, 10, NAN, 7, 0, 12)])
    tally = walk(panel, last_report(panel, 1), 1, (1, 2))
    # sent 9 in 10: arrives; 10 in the unmeasured: not counted; 10 in 7 and 7 in 0: lost; 0 in 12: 1 at least, arrives
    assert tally.blocks.tolist() == [4]
    assert tally.nacks.tolist() == [[2]]
    assert tally.goodput[1][0, 0] == pytest.approx(EFFICIENCY[9] + EFFICIENCY[1])
    assert tally.goodput[2][0, 0] == pytest.approx(cqi_efficiency(2)[9] + cqi_efficiency(2)[1])


def test_sums_stand_in_the_order_of_the_traces():
    panel = Panel([series(9, 9), series(9, 9, 9, 9), series(5, 4, 5)])
    tally = walk(panel, last_report(panel, 1), 1, (1,))
    assert tally.blocks.tolist() == [1, 3, 2]
    assert tally.nacks[:, 0].tolist() == [0, 0, 1]


def test_a_late_decision_leaves_the_one_before_in_force_for_a_part_of_the_second():
    panel = Panel([series(5, 9, 9, 9)])
    choices = Fixed(np.array([[5], [5], [9], [9]]))
    early, late = walk(panel, choices, 1, (1,)), walk(panel, choices, 1, (1,), 0.25)
    assert early.goodput[1][0, 0] == pytest.approx(EFFICIENCY[5] + 2 * EFFICIENCY[9])
    assert late.goodput[1][0, 0] == pytest.approx(1.25 * EFFICIENCY[5] + 1.75 * EFFICIENCY[9])
    whole = walk(panel, choices, 1, (1,), 1.0)
    assert whole.goodput[1][0, 0] == pytest.approx(2 * EFFICIENCY[5] + EFFICIENCY[9])


@pytest.mark.parametrize("delay", [1, 3])
def test_the_outer_loop_takes_each_step_when_its_report_would_come(delay: int):
    cqi, settings = noisy(300), Olla(bler_target=0.1, step_ack=0.03)
    panel = Panel([cqi])
    base = known(cqi, delay).astype(np.float32)
    rule = OuterLoop(base[:, None], [(0.03, 0.1, 0.0)], 1)

    tally = walk(panel, rule, delay, (1,))

    offset, sent, lost, blocks = 0.0, [], 0, 0
    for step in range(len(cqi)):
        heard = step - delay
        if heard >= 0 and np.isfinite(cqi[heard]):
            at = {"at_lowest": sent[heard] == 1, "at_highest": sent[heard] == 15}
            offset = float(advance_olla(offset, cqi[heard] >= sent[heard], settings, **at))
        sent.append(1 if np.isnan(base[step]) else int(np.clip(np.floor(base[step] + offset + 1e-4), 1, 15)))
        if np.isfinite(cqi[step]) and np.isfinite(base[step]):
            blocks, lost = blocks + 1, lost + int(cqi[step] < sent[-1])
    assert (tally.blocks[0], tally.nacks[0, 0]) == (blocks, lost)


@pytest.mark.parametrize("delay", [1, 3])
def test_no_plain_rule_sees_what_was_not_reported_yet(delay: int):
    now = 100
    before, after = noisy(140), noisy(140)
    after[now:] = noisy(40, seed=5)
    chosen = []
    for cqi in (before, after):
        panel = Panel([cqi])
        held = known(cqi, delay)
        table = markov_table([noisy(400, 9)], delay)
        rules = [*candidates(report_bases(panel, delay), 1), *candidates(markov_bases(table, held, (1,)), 1)]
        seen = []
        for _, rule in rules:
            heard = _Listener(rule)
            walk(panel, heard, delay, (1,))
            seen.append(np.stack(heard.chosen))
        chosen.append(np.concatenate(seen, axis=2))
    assert chosen[0].shape[2] > 4000
    np.testing.assert_array_equal(chosen[0][: now + delay], chosen[1][: now + delay])
    assert (chosen[0][now + delay :] != chosen[1][now + delay :]).any()


class _Listener:
    """Writes down what a rule chose."""

    def __init__(self, rule):
        self.rule, self.candidates, self.chosen = rule, rule.candidates, []

    def choose(self, rows):
        self.chosen.append(self.rule.choose(rows))
        return self.chosen[-1]

    def hear(self, nack, chosen, heard):
        self.rule.hear(nack, chosen, heard)


def test_minima_and_quantiles_are_of_what_was_held():
    panel = Panel([series(9, 5, 7, 8, NAN, 6)])
    bases = report_bases(panel, 1)
    by_name = {name: bases.cqi[:, index] for index, (_, name) in enumerate(bases.names)}
    np.testing.assert_array_equal(by_name["last"], [NAN, 9, 5, 7, 8, 8])
    np.testing.assert_array_equal(by_name["minimum of 3"][3:], [5, 5, 7])
    np.testing.assert_array_equal(by_name["0.5 quantile of 5"][5:], [8])


def test_the_table_is_the_share_of_what_followed():
    cqi = np.tile(series(9, 9, 5), 2000)
    table = markov_table([cqi], 1)
    assert table[9, 9] == pytest.approx(0.5, abs=0.01)
    assert table[5, 9] == pytest.approx(1.0, abs=0.01)
    bases = markov_bases(table, series(9, 5, NAN), (1,))
    by_name = {name: bases.cqi[:, index].tolist() for index, (_, name) in enumerate(bases.names)}
    # 9 arrives half the time (1.20), 5 always (0.877)
    assert by_name["table at price 0 by CQI table 1"][:2] == [9, 9]
    assert by_name["table at price 2 by CQI table 1"][:2] == [5, 9]
    assert by_name["table at 0.9"][:2] == [5, 9]


def tally(blocks, nacks, goodput) -> Tally:
    return Tally(np.array(blocks), np.array(nacks, float), {1: np.array(goodput, float)})


def test_the_best_keeps_both_limits_where_that_is_asked():
    some = np.arange(2)
    # the second is best but loses 12.5 % in all; the third keeps 10 % pooled, but loses 18 % of one trace
    found = tally([100, 100], [[10, 13, 18], [10, 12, 2]], [[200, 300, 250], [200, 300, 250]])
    assert best(found, 1, some, limited=False) == 1
    assert best(found, 1, some, limited=True) == 0
    assert best(found, 1, np.array([1]), limited=True) == 2
    hopeless = tally([100, 100], [[30, 20], [30, 20]], [[300, 200], [300, 200]])
    assert best(hopeless, 1, some, limited=True) == 1
