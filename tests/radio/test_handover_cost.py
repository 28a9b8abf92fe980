import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netpredict.radio.handover_cost import arrival_cost, gain_of_going

RATIO = st.floats(0, 1)


def test_a_sure_link_is_left_when_it_costs_more_than_the_price():
    arrival = arrival_cost(np.array(0.0), np.array(0.0))
    assert gain_of_going(np.array(0.3), np.array(0.0), arrival, 0.2) > 0
    assert gain_of_going(np.array(0.2), np.array(0.0), arrival, 0.2) == 0


@given(stay=RATIO, refused=RATIO, price=RATIO)
def test_a_lost_link_is_left_alone(stay, refused, price):
    arrival = arrival_cost(np.array(0.0), np.array(refused))
    assert gain_of_going(np.array(stay), np.array(1.0), arrival, price) <= 0


@given(stay=st.floats(0, 0.99), refused=RATIO)
def test_a_target_that_cannot_be_reached_costs_one_failure(stay, refused):
    assert arrival_cost(np.array(stay), np.array(1.0)) == 1
    assert arrival_cost(np.array(stay), np.array(refused)) >= stay
