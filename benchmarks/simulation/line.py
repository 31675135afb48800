"""The queue in memory: what ``dream_cad.queue`` keeps in SQL, for millions of simulated jobs.

The decisions are the library's own functions (``dream_cad.queue.order``); only the look-up of the
candidates is another, since SQL takes a millisecond. A test runs both on the same random traces.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from dream_cad.queue.order import HIGHEST, Head, Lane, entry_time, order_heads, start_time


@dataclass(slots=True)
class Job:
    """A job of the simulation; times in seconds."""

    seq: int
    model: str
    owner: str
    priority: int
    arrives: float
    seconds: float
    level: int = 0
    levelled_at: float = 0.0
    is_waiting: bool = False
    starts: float = -1.0


class Line:
    """Jobs that wait, and what their owners have had.

    Args:
        weights: of owners; 1 where none is given.
        ageing_s: waiting time after which a job's level rises by one.
    """

    def __init__(self, weights: dict[str, float], ageing_s: float = 1200.0) -> None:
        self._weights = weights
        self._ageing_s = ageing_s
        # level -> model -> owner -> heap of (seq, job)
        self._lines: list[dict[str, dict[str, list[tuple[int, Job]]]]] = [
            defaultdict(lambda: defaultdict(list)) for _ in range(HIGHEST + 1)
        ]
        self._due: list[deque[Job]] = [deque() for _ in range(HIGHEST)]
        self._owner_waiting: dict[str, int] = defaultdict(int)
        self.model_waiting: dict[str, int] = defaultdict(int)
        self.virtual_time: dict[str, float] = {}
        self._priorities: dict[str, list[int]] = defaultdict(lambda: [0] * (HIGHEST + 1))
        self._started: dict[tuple[str, int], float] = {}
        self._lifts: dict[tuple[str, str, int], float] = {}

    def add(self, job: Job, now: float) -> None:
        """Let a job wait."""
        if self._owner_waiting[job.owner] == 0:
            self._enter(job.owner)
        job.level, job.is_waiting = job.priority, True
        self._owner_waiting[job.owner] += 1
        self.model_waiting[job.model] += 1
        self._priorities[job.model][job.priority] += 1
        self._put(job, now)

    def claim(
        self, model: str | None, estimate_s: float, favourite: str | None = None
    ) -> Job | None:
        """Take the best job, as ``JobQueue.get_next_job`` does, and charge its owner."""
        models = [model] if model is not None else [m for m, n in self.model_waiting.items() if n]
        lanes = {name: lane for name in models if (lane := self._lane(name))}
        if not lanes:
            return None
        floor = max(lane.priority for lane in lanes.values())
        heads = [head for lane in lanes.values() for head in self._heads(lane, floor)]
        head = order_heads(heads, None, favourite)[0]
        _, job = heapq.heappop(self._lines[head.level][head.model][head.owner])
        job.is_waiting = False
        self._owner_waiting[job.owner] -= 1
        self.model_waiting[job.model] -= 1
        self._priorities[job.model][job.priority] -= 1
        lane = lanes[head.model]
        self._started[head.model, lane.priority] = head.virtual_time
        self._lifts[head.owner, *lane[:2]] = head.virtual_time - head.had
        self.charge(job.owner, estimate_s)
        return job

    def charge(self, owner: str, seconds: float) -> None:
        """Add GPU-seconds to what an owner has had."""
        self.virtual_time[owner] += seconds / self._weights.get(owner, 1.0)

    def age(self, now: float) -> None:
        """Raise by one the level of jobs that waited long enough at theirs."""
        for level in reversed(range(HIGHEST)):
            due = self._due[level]
            while due and due[0].levelled_at <= now - self._ageing_s:
                job = due.popleft()
                if job.is_waiting and job.level == level:
                    job.level = level + 1
                    self._put(job, now)

    def waiting_of(self, owner: str) -> int:
        """Return how many jobs of an owner wait."""
        return self._owner_waiting[owner]

    def _put(self, job: Job, now: float) -> None:
        job.levelled_at = now
        heapq.heappush(self._lines[job.level][job.model][job.owner], (job.seq, job))
        if job.level < HIGHEST:
            self._due[job.level].append(job)

    def _lane(self, model: str) -> Lane | None:
        """Return the most urgent priority that waits for a model, and where its last job began."""
        counts = self._priorities[model]
        priority = next((p for p in range(HIGHEST, -1, -1) if counts[p]), None)
        if priority is None:
            return None
        return Lane(model, priority, self._started.get((model, priority), 0.0))

    def _heads(self, lane: Lane, floor: int) -> Iterator[Head]:
        """Yield the first job of each owner at each level of a lane."""
        for level in range(HIGHEST, floor - 1, -1):
            by_owner = self._lines[level][lane.model]
            for owner in list(by_owner):
                heap = by_owner[owner]
                while heap and not (heap[0][1].is_waiting and heap[0][1].level == level):
                    heapq.heappop(heap)  # it rose to another level since
                if heap:
                    had = self.virtual_time[owner]
                    start = start_time(had, self._lifts.get((owner, *lane[:2]), 0.0), lane)
                    yield Head(lane.model, level, owner, start, heap[0][0], had)
                else:
                    del by_owner[owner]

    def _enter(self, owner: str) -> None:
        active = [self.virtual_time[name] for name, n in self._owner_waiting.items() if n > 0]
        start = entry_time(
            min(active, default=None),
            max(self.virtual_time.values(), default=None),
        )
        had = self.virtual_time.get(owner, start)
        self.virtual_time[owner] = max(had, start)
        for lane in [lane for lane in self._lifts if lane[0] == owner]:
            self._lifts[lane] -= self.virtual_time[owner] - had


class Fifo:
    """The oldest job first, whatever its priority and owner: the baseline."""

    def __init__(self) -> None:
        self._by_model: dict[str, deque[Job]] = defaultdict(deque)
        self.model_waiting: dict[str, int] = defaultdict(int)
        self._owner_waiting: dict[str, int] = defaultdict(int)

    def add(self, job: Job, now: float) -> None:
        """Let a job wait."""
        self._by_model[job.model].append(job)
        self.model_waiting[job.model] += 1
        self._owner_waiting[job.owner] += 1

    def claim(
        self, model: str | None, estimate_s: float, favourite: str | None = None
    ) -> Job | None:
        """Take the oldest job, of a model if one is named."""
        lines = [self._by_model[model]] if model is not None else list(self._by_model.values())
        waiting = [line for line in lines if line]
        if not waiting:
            return None
        job = min(waiting, key=lambda line: line[0].seq).popleft()
        self.model_waiting[job.model] -= 1
        self._owner_waiting[job.owner] -= 1
        return job

    def charge(self, owner: str, seconds: float) -> None:
        """Shares are nobody's business here."""

    def age(self, now: float) -> None:
        """Age is the order already."""

    def waiting_of(self, owner: str) -> int:
        """Return how many jobs of an owner wait."""
        return self._owner_waiting[owner]
