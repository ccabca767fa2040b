"""How everything here is timed: contestants take turns, the least time of each counts.

A machine that does other things slows all contestants of a turn alike, so ratios hold where times do not.
"""

import time
from collections.abc import Callable, Mapping

Run = Callable[[], object]


def least_times(runs: Mapping[str, Run], repeats: int, warm_up: int = 0) -> dict[str, float]:
    """Seconds of each contestant: the least of `repeats` runs after `warm_up` ones that do not count."""
    times = dict.fromkeys(runs, float("inf"))
    for repeat in range(warm_up + repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            result = run()
            seconds = time.perf_counter() - start
            if repeat >= warm_up:
                times[name] = min(times[name], seconds)
            del result
    return times
