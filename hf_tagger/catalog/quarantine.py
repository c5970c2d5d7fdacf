"""Refused rows and photos: counted by reason, written to quarantine.jsonl; too many stop the run."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hf_tagger import UserError

MIN_ROWS_TO_JUDGE = 100


class RowError(ValueError):
    """A row that cannot be used: its `column` (None: the whole row), a `reason` to count by, and `detail`."""

    def __init__(self, column: str | None, reason: str, detail: str):
        # A cell may hold megabytes, and characters that no file takes.
        detail = detail[:300].encode(errors="backslashreplace").decode()
        super().__init__(f"{column}: {detail}" if column else detail)
        self.column, self.reason, self.detail = column, reason, detail


class TooManyBadRows(UserError):
    """More rows were refused, or more products lost their photos, than `max_bad_fraction` allows."""


@dataclass(frozen=True)
class Refusal:
    """A row, or a part of one, that cannot be used."""

    number: int  # of the row in its file, from 1 (the first product is 1; a header line is not counted)
    id: str | None
    column: str | None
    reason: str
    detail: str
    fatal: bool = True  # the row is lost; False: only a part of it is (a photo, while there is a text)
    file: str = ""
    photos_lost: bool = False  # no photo of the product can be used, though the row names some


class Quarantine:
    """Collects refusals. The same one, added again in another epoch or by another worker, counts once, and so does a
    row with several.

    Args:
        path: quarantine.jsonl to write, one {row, id, file, column, reason, detail, fatal, photos_lost} per line (None:
            only count).
        max_bad_fraction: share of lost rows, or of products with photos that lost them all, from which `check` raises.
        resume: continue the file of an interrupted run; `saw` must then be called with what that run had read.
    """

    def __init__(self, path: str | Path | None, max_bad_fraction: float = 0.05, resume: bool = False):
        self.path = Path(path) if path is not None else None
        self.max_bad_fraction = max_bad_fraction
        self.counts: Counter[str] = Counter()
        self.seen = {"rows": 0, "photos": 0}
        # Hashes of 64 bits: a catalogue with a million bad rows stays within tens of megabytes.
        self.lost: dict[str, set[int]] = {"rows": set(), "photos": set()}
        self._known: set[int] = set()
        self._examples: dict[str, Refusal] = {}
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume and self.path.exists():
            # A last line without a newline was cut off when the run was killed.
            whole, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")
            self.path.write_text(whole + "\n" if whole else "", encoding="utf-8")
            for line in whole.split("\n") if whole else ():
                data = json.loads(line)
                self._count(Refusal(number=data.pop("row"), **data))
        else:
            self.path.write_text("")

    @property
    def rows_lost(self) -> int:
        return len(self.lost["rows"])

    @property
    def photos_lost(self) -> int:
        """Products that lost all their photos."""
        return len(self.lost["photos"])

    def saw(self, rows: int = 0, photos: int = 0) -> None:
        """Counts rows of the catalogue, refused or not, and those that name photos; each of them once."""
        self.seen["rows"] += rows
        self.seen["photos"] += photos

    def add(self, refusal: Refusal) -> None:
        if self._count(refusal) and self.path is not None:
            line = asdict(refusal)
            line = {"row": line.pop("number")} | line
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def merge(self, other: "Quarantine") -> None:
        """Adds what another process has counted of other rows."""
        self.counts += other.counts
        self.saw(**other.seen)
        self.add_lost(other.lost)
        self._examples = other._examples | self._examples

    def add_lost(self, lost: dict[str, set[int]]) -> None:
        """Adds what another process has lost of the same rows."""
        for what, rows in lost.items():
            self.lost[what] |= rows

    def check(self, final: bool = False) -> None:
        """Raises TooManyBadRows, with the three commonest reasons, if more than `max_bad_fraction` of the rows, or of
        the products with photos, are lost. Needs at least 100 of them, except at the end of the catalogue (`final`)."""
        for what, lost in self.lost.items():
            seen = self.seen[what]
            if seen >= (1 if final else MIN_ROWS_TO_JUDGE) and len(lost) > self.max_bad_fraction * seen:
                where = f" All of them: {self.path}." if self.path else ""
                said = "rows cannot be used" if what == "rows" else "products with photos lost them all"
                raise TooManyBadRows(
                    f"{len(lost)} of {seen} {said} (max_bad_fraction: {self.max_bad_fraction}). Commonest reasons:\n"
                    f"{self._reasons(3, what)}\nRepair them or the schema, or raise max_bad_fraction.{where}")

    def totals(self) -> str:
        """One line: every row is used or set aside."""
        rows = self.seen["rows"]
        line = f"{rows:,} rows: {rows - self.rows_lost:,} used, {self.rows_lost:,} set aside"
        return line + (f", {self.photos_lost:,} lost their photos" if self.photos_lost else "")

    def summary(self) -> str:
        """The totals, and counts per reason, commonest first, with an example of each."""
        return self.totals() + (f":\n{self._reasons(None)}" if self.counts else "")

    def _reasons(self, most: int | None, lost: str | None = None) -> str:
        counts = self.counts
        if lost is not None:
            counts = Counter({reason: count for reason, count in counts.items()
                              if getattr(self._examples[reason], "fatal" if lost == "rows" else "photos_lost")})
        lines = []
        for reason, count in counts.most_common(most):
            example = self._examples[reason]
            place = " ".join(filter(None, [example.file, f"row {example.number}", example.id and f"(id {example.id})"]))
            lines.append(f"  {count} × {reason}, as in {place}: {example.detail}")
        return "\n".join(lines)

    def _count(self, refusal: Refusal) -> bool:
        row = _key(refusal.file, refusal.number)
        for what, lost in (("rows", refusal.fatal), ("photos", refusal.photos_lost)):
            if lost:
                self.lost[what].add(row)
        key = _key(row, refusal.id, refusal.column, refusal.reason)
        if key in self._known:
            return False
        self._known.add(key)
        self.counts[refusal.reason] += 1
        example = self._examples.get(refusal.reason)
        if example is None or (refusal.fatal, refusal.photos_lost) > (example.fatal, example.photos_lost):
            self._examples[refusal.reason] = refusal
        return True


def _key(*parts: Any) -> int:
    """The same in every process, as Python's own hash is not."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big")
