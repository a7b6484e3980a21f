"""The solver against a slow model that tries everything."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from ring.flow import FlowGraph


def test_flow_takes_the_cheaper_of_two_paths_first() -> None:
    """Two units: the free path carries one, the path of cost 5 the other."""
    graph = FlowGraph()
    source, sink = graph.node(), graph.node()
    cheap, dear = graph.edge(source, sink, 1), graph.edge(source, sink, 3, 5)
    limit, end = graph.edge(sink, final := graph.node(), 2), final

    assert graph.send(source, end) == 2
    assert [graph.flow_on(edge) for edge in (cheap, dear, limit)] == [1, 1, 2]


def test_flow_takes_back_an_earlier_choice() -> None:
    """The greedy choice blocks the second unit; the residual edge undoes it."""
    graph = FlowGraph()
    s, a, b, x, y, t = (graph.node() for _ in range(6))
    graph.edge(s, a, 1)
    graph.edge(s, b, 1)
    a_x, a_y = graph.edge(a, x, 1, 0), graph.edge(a, y, 1, 3)
    b_x = graph.edge(b, x, 1, 1)
    graph.edge(x, t, 1)
    graph.edge(y, t, 1)

    assert graph.send(s, t) == 2
    assert [graph.flow_on(edge) for edge in (a_x, a_y, b_x)] == [0, 1, 1]


def test_flow_that_is_taken_back_is_refunded() -> None:
    """a is on x for 2. For b, y costs 6; x costs 3, less 2 back, plus 4 for a on y: 5, so better."""
    graph = FlowGraph()
    s, a, b, x, y, t = (graph.node() for _ in range(6))
    graph.edge(s, a, 1)
    graph.edge(s, b, 1)
    a_x, a_y = graph.edge(a, x, 1, 2), graph.edge(a, y, 1, 4)
    b_x, b_y = graph.edge(b, x, 1, 3), graph.edge(b, y, 1, 6)
    graph.edge(x, t, 1)
    graph.edge(y, t, 1)

    assert graph.send(s, t) == 2
    assert [graph.flow_on(edge) for edge in (a_x, a_y, b_x, b_y)] == [0, 1, 1, 0]


def test_lower_bound_is_filled_before_anything_above_it() -> None:
    """Node a costs nothing and b costs 2 a unit, but b wants at least one of the three."""
    graph = FlowGraph()
    s, t = graph.node(), graph.node()
    source = graph.node()
    graph.edge(s, source, 3)
    edges = []
    for cost, low in ((0, 0), (2, 1)):
        node = graph.node()
        edges.append(graph.edge(source, node, 3, cost))
        graph.bounded(node, t, low, 3, penalty=100)

    assert graph.send(s, t) == 3
    assert [graph.flow_on(edge) for edge in edges] == [2, 1]


def test_no_path_sends_nothing() -> None:
    """A sink out of reach is an answer, not an error."""
    graph = FlowGraph()
    assert graph.send(graph.node(), graph.node()) == 0


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
@settings(max_examples=150)
def test_assignment_costs_as_little_as_the_best_of_all(
    costs: list[list[int]], room: list[int]
) -> None:
    """Rows to columns of limited room: as many as fit, at the least cost of all ways to do it."""
    graph = FlowGraph()
    s, t = graph.node(), graph.node()
    columns = [graph.node() for _ in room]
    edges = []
    for row in costs:
        at = graph.node()
        graph.edge(s, at, 1)
        edges.append([graph.edge(at, columns[c], 1, cost) for c, cost in enumerate(row)])
    for column, places in zip(columns, room, strict=True):
        graph.edge(column, t, places)

    sent = graph.send(s, t)
    paid = sum(
        cost * graph.flow_on(edge)
        for row, ids in zip(costs, edges, strict=True)
        for cost, edge in zip(row, ids, strict=True)
    )

    assert (sent, paid) == best_of_all(costs, room)


def best_of_all(costs: list[list[int]], room: list[int]) -> tuple[int, int]:
    """Most rows placed, then least cost, by trying each choice of column (3: not placed)."""
    best = (0, 0)
    for choice in product(range(4), repeat=len(costs)):
        if all(choice.count(column) <= places for column, places in enumerate(room)):
            placed = [
                (row, column) for row, column in zip(costs, choice, strict=True) if column < 3
            ]
            paid = sum(row[column] for row, column in placed)
            best = max(best, (len(placed), -paid))
    return best[0], -best[1]
