"""Minimum-cost flow on small graphs of integers: the solver behind the builder.

Placement asks for the best of very many assignments under rules that all are sums: replicas a
shard, replicas a node, replicas a zone. That is a flow, and for flows "best" is found exactly, and
whole-numbered capacities give whole-numbered answers. Deterministic: integers only, edges are
looked at in the order they were added.

Successive shortest paths, with potentials so that Dijkstra's search stays valid on the residual
graph. Cost: one search per unit of flow, O(units * edges * log nodes); a ring of 32 shards takes
milliseconds.

Source: Ahuja, Magnanti, Orlin, "Network Flows" (1993), section 9.7.
"""

import heapq


class FlowGraph:
    """A directed graph whose edges have a capacity and a cost, both whole and not negative."""

    def __init__(self) -> None:
        self._edges_of: list[list[int]] = []
        self._target: list[int] = []
        self._room: list[int] = []
        self._cost: list[int] = []

    def node(self) -> int:
        """A new node."""
        self._edges_of.append([])
        return len(self._edges_of) - 1

    def edge(self, source: int, target: int, capacity: int, cost: int = 0) -> int:
        """A new edge; returns its id, for `flow_on`. Its reverse twin is the id with bit 0 set."""
        assert capacity >= 0
        assert cost >= 0
        edge = len(self._target)
        for start, end, room, price in (
            (source, target, capacity, cost),
            (target, source, 0, -cost),
        ):
            self._edges_of[start].append(len(self._target))
            self._target.append(end)
            self._room.append(room)
            self._cost.append(price)
        return edge

    def bounded(self, source: int, target: int, low: int, high: int, penalty: int) -> None:
        """An edge that carries at most `high`, and pays `penalty` for each unit above `low`.

        With a penalty beyond all other costs together, and a total that is fixed, every `low` that
        can be reached is reached: a lower bound without negative costs.
        """
        self.edge(source, target, low)
        if high > low:
            self.edge(source, target, high - low, penalty)

    def flow_on(self, edge: int) -> int:
        """Units that the edge carries."""
        return self._room[edge ^ 1]

    def send(self, source: int, sink: int) -> int:
        """Sends as much as fits from `source` to `sink`, at least cost; returns the units sent."""
        potential = [0] * len(self._edges_of)
        sent = 0
        while True:
            path = self._cheapest_path(source, sink, potential)
            if not path:
                return sent
            units = min(self._room[edge] for edge in path)
            for edge in path:
                self._room[edge] -= units
                self._room[edge ^ 1] += units
            sent += units

    def _cheapest_path(self, source: int, sink: int, potential: list[int]) -> list[int]:
        """The edges of a cheapest path in reverse, empty if there is none; raises potentials."""
        reached: dict[int, int] = {}
        best = {source: 0}
        came_by: dict[int, int] = {}
        heap = [(0, source)]
        while heap and sink not in reached:
            distance, node = heapq.heappop(heap)
            if node in reached:
                continue
            reached[node] = distance
            for edge in self._edges_of[node]:
                target = self._target[edge]
                if self._room[edge] == 0 or target in reached:
                    continue
                there = distance + self._cost[edge] + potential[node] - potential[target]
                if target not in best or there < best[target]:
                    best[target] = there
                    came_by[target] = edge
                    heapq.heappush(heap, (there, target))
        if sink not in reached:
            return []
        for node in range(len(potential)):
            potential[node] += min(reached.get(node, reached[sink]), reached[sink])
        return self._walk_back(source, sink, came_by)

    def _walk_back(self, source: int, sink: int, came_by: dict[int, int]) -> list[int]:
        path: list[int] = []
        node = sink
        while node != source:
            path.append(came_by[node])
            node = self._target[came_by[node] ^ 1]
        return path
