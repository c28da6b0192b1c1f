"""Turns: nothing is lost or taken twice, every client has its share, and what is foretold holds."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.inference.fair_queue import QUANTUM, Entry, FairQueue
from tests.titanic import Passenger

ONE = Passenger(pclass=1, sex="male")


LOOP = asyncio.new_event_loop()
LOOP.close()


def entry(rows: int, client: str) -> Entry:
    return Entry([ONE] * rows, client, LOOP.create_future())


REQUESTS = st.lists(st.tuples(st.integers(1, 60), st.sampled_from("abc")), max_size=12)


@given(requests=REQUESTS, rooms=st.lists(st.integers(1, 40), min_size=1), leaving=st.sets(st.integers(0, 11)))
def test_every_row_is_taken_once_and_in_order(
    requests: list[tuple[int, str]], rooms: list[int], leaving: set[int]
) -> None:
    queue, entries = FairQueue(), [entry(*one) for one in requests]
    for one in entries:
        queue.add(one)
    taken: Counter[int] = Counter()
    step = 0
    while queue.rows:
        room = rooms[step % len(rooms)]
        before, coming = queue.rows, queue.peek(room)
        batch = queue.take(room)
        assert {part.entry: part.stop - part.start for part in batch} == coming
        assert sum(coming.values()) == min(room, before) == before - queue.rows
        for part in batch:
            assert part.start == taken[id(part.entry)]
            taken[id(part.entry)] = part.stop
        if step in leaving and step < len(entries):
            queue.remove(entries[step])
            queue.remove(entries[step])
            assert entries[step] not in list(queue)
        # One with more rows than all others together waits for all of these.
        assert queue.rows == sum(one.waiting for one in queue) == queue.rows_before("d", 1000)
        step += 1
    for place, one in enumerate(entries):
        assert taken[id(one)] == len(one.rows) or place in leaving
    assert not list(queue)


@given(sizes=st.lists(st.integers(1, 200), min_size=2, max_size=5), room=st.sampled_from([8, 16, 64]))
def test_clients_that_wait_all_the_time_get_equal_shares(sizes: list[int], room: int) -> None:
    queue = FairQueue()
    served: Counter[str] = Counter()
    clients = {str(place): size for place, size in enumerate(sizes)}
    for client, size in clients.items():
        for _ in range(-(-500 // size)):
            queue.add(entry(size, client))
    for _ in range(400 * len(sizes) // room):
        for part in queue.take(room):
            served[part.entry.client] += part.stop - part.start
    assert max(served.values()) - min(served.values()) <= 2 * QUANTUM


@given(requests=REQUESTS, rows=st.integers(1, 60), client=st.sampled_from("abcd"), room=st.sampled_from([8, 20, 64]))
def test_about_as_many_rows_come_first_as_were_foretold(
    requests: list[tuple[int, str]], rows: int, client: str, room: int
) -> None:
    queue = FairQueue()
    for one in requests:
        queue.add(entry(*one))
    foretold, own, before = queue.rows_before(client, rows), entry(rows, client), 0
    queue.add(own)
    while True:
        others = sum(part.stop - part.start for part in queue.take(room) if part.entry is not own)
        if not own.waiting:
            break
        before += others
    assert before <= foretold


ARRIVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60)), min_size=1, max_size=12)
"""Rows served since the one before, and rows of the request."""


def ends_when_shared(arrivals: list[tuple[int, int]]) -> list[float]:
    """How many rows are served until each request would end, were each row spread over all that are there."""
    left, ends, waiting = [0.0] * len(arrivals), [0.0] * len(arrivals), list(enumerate(arrivals))
    served = 0.0
    pause = float(waiting[0][1][0])
    while waiting or any(left):
        if (waiting and pause <= 0) or not any(left):
            place, (_, rows) = waiting.pop(0)
            left[place] = float(rows)
            pause = float(waiting[0][1][0]) if waiting else 1e9
            continue
        sharers = [place for place, rows in enumerate(left) if rows > 0]
        step = min([pause, *(left[place] * len(sharers) for place in sharers)])
        served, pause = served + step, pause - step
        for place in sharers:
            left[place] -= step / len(sharers)
            if left[place] < 1e-9:
                left[place], ends[place] = 0.0, served
    return ends


@given(arrivals=ARRIVALS)
def test_no_request_ends_later_than_if_all_shared_and_none_is_overtaken_by_one_as_large(
    arrivals: list[tuple[int, int]],
) -> None:
    queue, entries, ends = FairQueue(), [entry(rows, "a") for _, rows in arrivals], dict[int, int]()
    served = 0

    def take() -> None:
        nonlocal served
        for part in queue.take(1):
            served += 1
            if part.stop == len(part.entry.rows):
                ends[entries.index(part.entry)] = served

    for (pause, _), one in zip(arrivals, entries, strict=True):
        for _ in range(pause):
            take()
        queue.add(one)
    while queue.rows:
        take()
    assert all(ends[place] <= end + 1e-6 for place, end in enumerate(ends_when_shared(arrivals)))
    for later in range(len(entries)):
        for earlier in range(later):
            if arrivals[earlier][1] <= arrivals[later][1]:
                assert ends[earlier] < ends[later]


def test_a_stream_of_small_requests_does_not_hold_up_a_large_one_for_ever() -> None:
    queue, large = FairQueue(), entry(100, "a")
    queue.add(large)
    served = 0
    while large.waiting:
        # Half of what the client gets, which sharing would leave the large one the other half of.
        queue.add(entry(1, "a"))
        served += sum(part.stop - part.start for part in queue.take(2))
        assert served < 250


def test_only_those_that_can_still_be_in_time_stay_where_others_wait() -> None:
    queue, late, early = FairQueue(), entry(20, "a"), entry(1, "a")
    late.deadline, early.deadline = 10.0, 10.0
    queue.add(late)
    # Alone it costs nobody anything.
    assert queue.drop_late(9.0, 64, 0.1) == []
    queue.add(early)
    assert queue.drop_late(7.9, 64, 0.1) == []
    assert queue.drop_late(8.1, 19, 0.1) == []
    assert queue.drop_late(8.1, 20, 0.1) == [late]
    assert (queue.rows, queue.drop_late(20.0, 64, 0.1)) == (1, [])
    # Of those that are all late one stays.
    more = [entry(2, "b"), entry(3, "a")]
    for one in more:
        one.deadline = 10.0
        queue.add(one)
    assert len(queue.drop_late(20.0, 64, 0.1)) == 2
    assert len(list(queue)) == 1


def test_beginning_anew_forgets_what_was_computed() -> None:
    queue, one = FairQueue(), entry(20, "a")
    queue.add(one)
    (part,) = queue.take(12)
    assert (part.start, part.stop, part.current, queue.rows) == (0, 12, True, 8)
    queue.reset()
    assert (one.waiting, queue.rows, part.current) == (20, 20, False)
    (again,) = queue.take(64)
    assert (again.start, again.stop, again.current, queue.rows) == (0, 20, True, 0)
    assert queue.clear() == []


def test_a_slice_is_current_for_one_beginning_alone() -> None:
    queue, one = FairQueue(), entry(9, "a")
    queue.add(one)
    slices = []
    for _ in range(4):
        slices += queue.take(9)
        one.inference_seconds = 1.0
        queue.add(one)
        queue.reset()
        assert (one.waiting, one.inference_seconds, one.predictions, one.encoded) == (9, 0.0, [], [])
        queue.remove(one)
        queue.add(one)
    assert [part.epoch for part in slices] == [0, 1, 2, 3]
    assert not any(part.current for part in slices)
    assert queue.take(9)[0].current


def test_a_cleared_queue_is_empty_and_takes_others() -> None:
    queue, first, second = FairQueue(), entry(9, "a"), entry(4, "b")
    queue.add(first)
    queue.add(second)
    queue.take(2)
    assert queue.clear() == [first, second]
    assert (queue.rows, list(queue), queue.take(8)) == (0, [], [])
    queue.add(second)
    assert (queue.rows, list(queue)) == (4, [second])
