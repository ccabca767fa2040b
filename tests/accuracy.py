"""The accuracy table: parity checks leave their largest errors here, and pytest prints them at the end.

`make test` reprints the table of the README; a part of it comes from a part of the tests.
"""

from collections.abc import Iterator

_largest: dict[tuple[str, str], tuple[float, float]] = {}


def within(check: str, quantity: str, error: float, bar: float) -> bool:
    """Whether `error` keeps `bar`; enters it as `quantity` of `check`. A NaN never does."""
    previous = _largest.get((check, quantity), (0.0, bar))[0]
    _largest[check, quantity] = (error if not error <= previous else previous, bar)
    return bool(error <= bar)


def table() -> Iterator[str]:
    """Markdown lines: check, quantity, largest error, bar."""
    if _largest:
        yield "| check | quantity | largest error | bar |"
        yield "|---|---|---|---|"
    for (check, quantity), (error, bar) in _largest.items():
        yield f"| {check} | {quantity} | {error:.1e} | {bar:.0e} |"
