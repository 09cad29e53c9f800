"""Labels cover neither one another nor a point, and stay in the picture."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from tinypress.report.labels import Box, Spot, place

FRAME = Box(0, 0, 600, 300)
SPOTS = st.lists(
    st.builds(Spot, st.floats(0, 600), st.floats(0, 300), st.floats(10, 160), st.just(14.0)), max_size=16
)


@settings(deadline=None, max_examples=50)
@given(SPOTS)
def test_no_label_covers_a_label_or_a_point_or_leaves_the_frame(spots: list[Spot]) -> None:
    boxes = [spotted.box for spotted in place(spots, FRAME) if spotted is not None]
    assert all(box.inside(FRAME) for box in boxes)
    assert all(one.overlap(other) == 0 for one, other in combinations(boxes, 2))
    points = [Box(spot.x, spot.y, spot.x, spot.y).grown(spot.reach) for spot in spots]
    assert all(box.overlap(point) == 0 for box in boxes for point in points)


@settings(deadline=None, max_examples=50)
@given(SPOTS)
def test_the_same_spots_get_the_same_places(spots: list[Spot]) -> None:
    assert place(spots, FRAME) == place(spots, FRAME)


def test_a_lone_label_stands_right_of_its_point() -> None:
    (spotted,) = place([Spot(100, 100, 50, 14)], FRAME)
    assert spotted is not None
    assert spotted.box.left > 100
    assert spotted.box.bottom < 100 < spotted.box.top
    assert spotted.leader is None


def test_a_point_at_the_right_edge_has_its_label_on_the_left() -> None:
    (spotted,) = place([Spot(598, 100, 50, 14)], FRAME)
    assert spotted is not None
    assert spotted.box.right < 598


def test_a_crowd_leaves_labels_out_but_keeps_the_one_that_must_stay() -> None:
    crowd = [Spot(300, 150, 500, 14, must=index == 59) for index in range(60)]
    places = place(crowd, Box(0, 100, 600, 200))
    assert places[59] is not None
    assert places.count(None) > 40


def test_a_line_is_left_free_where_there_is_room() -> None:
    line = Box(100, 98, 400, 102)
    (spotted,) = place([Spot(100, 100, 50, 14)], FRAME, [line])
    assert spotted is not None
    assert spotted.box.overlap(line) == 0


def test_a_far_label_has_a_leader_to_its_edge() -> None:
    ring = [(-30, 0), (-20, 15), (0, 20), (20, 15), (30, 0), (20, -15), (0, -20), (-20, -15)]
    walls = [Spot(300 + dx, 150 + dy, 1, 1, reach=9) for dx, dy in ring]
    spotted = place([Spot(300, 150, 60, 14), *walls], FRAME)[0]
    assert spotted is not None
    assert spotted.leader is not None
    x, y = spotted.leader
    assert spotted.box.left <= x <= spotted.box.right
    assert spotted.box.bottom <= y <= spotted.box.top
