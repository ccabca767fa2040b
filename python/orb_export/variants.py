"""The published Orb-v3 family as a table, and where its weights come from."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from orb_export.contract import UNLIMITED_NEIGHBORS

BASE_URL = "https://orbitalmaterials-public-models.s3.us-west-1.amazonaws.com/forcefields/"


@dataclass(frozen=True)
class Variant:
    """One published model. Weights are under Apache-2.0."""

    name: str
    file: str  # under BASE_URL
    kind: str
    max_neighbors: int
    dataset: str
    has_charge_spin: bool = False
    has_stress: bool = True
    sha256: str | None = None  # of the file; None while unknown, then the first download is remembered

    @property
    def url(self) -> str:
        """Where the weights are published."""
        return BASE_URL + self.file

    @property
    def file_name(self) -> str:
        """Last part of the URL."""
        return self.file.rsplit("/", maxsplit=1)[-1]

    @property
    def description(self) -> str:
        """One line for metadata."""
        cap = f"{self.max_neighbors} neighbors"
        return f"Orb-v3 {self.kind}, {cap}, trained on {self.dataset}; weights Apache-2.0"


_OMAT = "OMat24 (AIMD subset)"
_MPA = "MPtrj and Alexandria (PBE)"
_DISTILLED = "MPtrj and Alexandria structures, targets from conservative-inf-mpa"
_OMOL = "OMol25 (wB97M-V/def2-TZVPD)"
_INF = UNLIMITED_NEIGHBORS

_ROWS = (
    Variant(
        "orb-v3-conservative-20-omat",
        "orb-v3/orb-v3-conservative-20-omat-20250404.ckpt",
        "conservative",
        20,
        _OMAT,
    ),
    Variant(
        "orb-v3-conservative-inf-omat",
        "orb-v3/orb-v3-conservative-inf-omat-20250404.ckpt",
        "conservative",
        _INF,
        _OMAT,
    ),
    Variant("orb-v3-direct-20-omat", "orb-v3/orb-v3-direct-20-omat-20250404.ckpt", "direct", 20, _OMAT),
    Variant("orb-v3-direct-inf-omat", "orb-v3/orb-v3-direct-inf-omat-20250404.ckpt", "direct", _INF, _OMAT),
    Variant(
        "orb-v3-conservative-20-mpa",
        "orb-v3/orb-v3-conservative-20-mpa-20250404.ckpt",
        "conservative",
        20,
        _MPA,
    ),
    Variant(
        "orb-v3-conservative-inf-mpa",
        "orb-v3/orb-v3-conservative-inf-mpa-20250404.ckpt",
        "conservative",
        _INF,
        _MPA,
    ),
    Variant("orb-v3-direct-20-mpa", "orb-v3/orb-v3-direct-20-mpa-20250404.ckpt", "direct", 20, _DISTILLED),
    Variant(
        "orb-v3-direct-inf-mpa", "orb-v3/orb-v3-direct-inf-mpa-20250404.ckpt", "direct", _INF, _DISTILLED
    ),
    # conservative: newer upstream releases give a stress at inference, although it was not trained on one
    Variant(
        "orb-v3-conservative-omol",
        "orb-v3-conservative-omol-20250820.ckpt",
        "conservative",
        _INF,
        _OMOL,
        True,
    ),
    Variant(
        "orb-v3-direct-omol",
        "orb-v3-direct-omol-20250820.ckpt",
        "direct",
        _INF,
        _OMOL,
        True,
        has_stress=False,
    ),
)
VARIANTS = {row.name: row for row in _ROWS}


def get(name: str) -> Variant:
    """The row of a name, spelled with `-` or `_`. Raises ValueError that lists close names."""
    row = VARIANTS.get(name.replace("_", "-").lower())
    if row is None:
        close = difflib.get_close_matches(name.replace("_", "-").lower(), VARIANTS, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(VARIANTS)}"
        raise ValueError(
            f"variants: `name` is {name!r} but must be a published model or an existing file; {hint}"
        )
    return row


def by_file(file_name: str) -> Variant | None:
    """The row whose published file has this name, if any."""
    return next((row for row in _ROWS if row.file_name == file_name), None)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def weights_path(
    variant: Variant, weights: str | Path | None = None, cache: str | Path | None = None
) -> Path:
    """A local file with the weights: `weights` itself, else the cached or freshly downloaded published file.

    The cache is `cache`, or the user's cache directory. Where the published checksum is not known, that of
    the first download is kept beside the file and later uses are checked against it. Raises
    FileNotFoundError, ConnectionError (no network) and ValueError (checksum).
    """
    if weights is not None:
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(f"variants: `weights` is {str(path)!r} but no such file exists")
        return path
    import pooch  # imported here: not needed for local files

    folder = Path(cache) if cache is not None else Path(pooch.os_cache("orb_export"))
    path = folder / variant.file_name
    record = folder / f"{variant.file_name}.sha256"
    known = variant.sha256 or (record.read_text().split()[0] if record.is_file() and path.is_file() else None)
    if path.is_file() and known is not None and (found := _sha256(path)) != known:
        raise ValueError(
            f"variants: `{path}` has SHA-256 {found} but must have {known}; delete it to download again"
        )
    if not path.is_file():
        try:
            pooch.retrieve(variant.url, known_hash=known, fname=variant.file_name, path=folder)
        except (OSError, ValueError) as error:  # requests' errors are OSError; a wrong checksum is ValueError
            if isinstance(error, ValueError) and "hash" in str(error):
                raise ValueError(
                    f"variants: {variant.url} does not have the published checksum: {error}"
                ) from error
            raise ConnectionError(
                f"variants: {variant.name} could not be downloaded from {variant.url} ({error}); fetch the "
                "file by other means and give its path as `weights`"
            ) from error
    if not record.is_file():
        record.write_text(f"{_sha256(path)}  {variant.file_name}\n")
    return path
