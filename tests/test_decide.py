from types import SimpleNamespace

import numpy as np

from netpredict.config import HookConfig
from netpredict.decide import BoundHook, Fired


def test_firings_reach_their_lane_in_the_order_of_the_log_and_not_of_the_rounds():
    """Two reports of a UE in one slot may fire with one id: the store keeps the first it is given."""
    bound = BoundHook("handover", HookConfig(plugin="handover", stream="rsrp"), None, ())
    lanes = [SimpleNamespace(firings=[]), None, SimpleNamespace(firings=[])]
    fired = Fired()
    lane = np.array([0, 1, 2])
    fired.add(bound, [(0, "later"), (1, "of a lane that has gone")], np.array([7, 8, 9]), lane)  # round 0
    fired.add(bound, [(0, "earlier"), (2, "elsewhere")], np.array([3, 4, 5]), lane)  # round 1
    fired.hand_over(lanes)
    assert [firing for firing, _ in lanes[0].firings] == ["earlier", "later"]
    assert lanes[2].firings == [("elsewhere", ("log",))]
    fired.hand_over(lanes)
    assert len(lanes[0].firings) == 2
