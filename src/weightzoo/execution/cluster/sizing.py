"""How many members a node is given next: shares by measured speed, smaller ones towards the end.

Guided self-scheduling (Polychronopoulos & Kuck 1987) with weights: a free slot takes its share of half of what is left,
so that fast nodes take more, and slots that end early find small pieces to take. Nodes are measured as they work, and
get the smallest piece as long as they are not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from weightzoo.execution.shard import LANE, most_members
from weightzoo.members import Cohort

NEWEST = 0.5  # weight of the newest measurement of a node's speed


@dataclass
class Node:
    """A machine of the cluster, and what it can do."""

    id: str
    name: str
    slots: int  # tasks at a time
    busy: int = 0
    speed: float = math.nan  # epochs of single models a second and slot; NaN until it was measured

    def measured(self, speed: float) -> None:
        """Take a new measurement into account."""
        self.speed = speed if math.isnan(self.speed) else NEWEST * speed + (1 - NEWEST) * self.speed


def share(node: Node, nodes: Iterable[Node], left: int, least: int, most: int) -> int:
    """How many of `left` members a slot of the node should train next: a multiple of `least`, at most `most`."""
    speeds = {one.id: one.speed for one in nodes if not math.isnan(one.speed)}
    if node.id not in speeds:
        return least
    typical = sum(speeds.values()) / len(speeds)
    total = sum(one.slots * speeds.get(one.id, typical) for one in nodes)
    wanted = left * node.speed / (2 * total)
    return max(least, min(math.ceil(wanted / least) * least, most - most % least))


class Backlog:
    """Members that nobody trains yet, in cohorts."""

    def __init__(self, cohorts: Iterable[Cohort], parameters: int, most: int) -> None:
        """At most `most` members of models with so many parameters are trained together."""
        self._cohorts = deque(cohorts)
        self.most = most_members(parameters, most)
        self.least = LANE if self.most >= LANE else 1

    @property
    def left(self) -> int:
        """How many members there are."""
        return sum(map(len, self._cohorts))

    def take(self, node: Node, nodes: Iterable[Node]) -> Cohort | None:
        """The next members for a free slot of the node; None if there are none."""
        if not self._cohorts:
            return None
        cohort = self._cohorts.popleft()
        size = min(share(node, nodes, self.left + len(cohort), self.least, self.most), len(cohort))
        if size < len(cohort):
            self._cohorts.appendleft(cohort.select(range(size, len(cohort))))
        return cohort.select(range(size))
