"""How far a run is: a bar with ns/day and time left on a terminal, plain lines elsewhere."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TextIO

_LINES = 20  # at most, of a run that no terminal watches


class Progress:
    """Shows steps from `first` to `last`; `timestep` in fs."""

    def __init__(self, first: int, last: int, timestep: float, stream: TextIO | None = None) -> None:
        from tqdm import tqdm

        self._stream = sys.stderr if stream is None else stream
        self._first, self._last, self._timestep = first, last, timestep
        self._began = time.perf_counter()
        self._warm: tuple[int, float] | None = None  # the first steps of a model are slow
        self._next_line = first + 1
        self._bar = tqdm(
            total=last,
            initial=first,
            unit="step",
            file=self._stream,
            disable=not self._stream.isatty(),
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}",
        )

    def speed(self, step: int) -> float:
        """Simulated ns per day of wall time, since the first report if there was one after it."""
        return self._timestep * 1e-6 * 86400 / self._seconds_a_step(step)

    def _seconds_a_step(self, step: int) -> float:
        if self._warm is None or step <= self._warm[0]:
            return max(time.perf_counter() - self._began, 1e-9) / max(1, step - self._first)
        return (time.perf_counter() - self._warm[1]) / (step - self._warm[0])

    def show(self, step: int) -> None:
        """Tell that `step` was reached."""
        speed = self.speed(step)
        if self._warm is None:
            self._warm = step, time.perf_counter()
        if not self._bar.disable:
            self._bar.set_postfix_str(f"{speed:.3g} ns/day", refresh=False)
            self._bar.update(step - self._bar.n)
        elif step >= self._next_line or step == self._last:
            every = max(1, (self._last - self._first) // _LINES)
            self._next_line = step // every * every + every
            left = timedelta(seconds=round(self._seconds_a_step(step) * (self._last - step)))
            print(f"step {step}/{self._last}, {speed:.3g} ns/day, {left} left", file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal in order."""
        self._bar.close()


class Interrupt:
    """Whether SIGINT or SIGTERM has come."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn the first SIGINT or SIGTERM into a flag, so that a run ends between two steps; a second one kills.

    Signals reach the main thread only; in others nothing is changed.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.asked = True
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
