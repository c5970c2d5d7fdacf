"""Refused rows and photos: counted by reason, written to quarantine.jsonl; too many stop the run."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hf_tagger import UserError

MIN_ROWS_TO_JUDGE = 100


class RowError(ValueError):
    """A row that cannot be used: its `column` (None: the whole row), a `reason` to count by, and `detail`."""

    def __init__(self, column: str | None, reason: str, detail: str):
        super().__init__(f"{column}: {detail}" if column else detail)
        self.column, self.reason, self.detail = column, reason, detail


class TooManyBadRows(UserError):
    """More rows were refused than `max_bad_fraction` allows."""


@dataclass(frozen=True)
class Refusal:
    """
    Args:
        number: row number in its file, from 1 (the first product is 1; a header line is not counted).
        fatal: the row is lost. False: only a part of it is (a photo, while there is a text).
        file: the file that holds the row.
    """

    number: int
    id: str | None
    column: str | None
    reason: str
    detail: str
    fatal: bool = True
    file: str = ""


class Quarantine:
    """Collects refusals. The same one, added again in another epoch or by another worker, counts once.

    Args:
        path: quarantine.jsonl to write, one {row, id, file, column, reason, detail, fatal} per line (None: only count).
        max_bad_fraction: share of lost rows from which `check` raises; refused photos do not count.
        resume: continue the file of an interrupted run; `saw` must then be called with the number of rows which that
            run had read.
    """

    def __init__(self, path: str | Path | None, max_bad_fraction: float = 0.05, resume: bool = False):
        self.path = Path(path) if path is not None else None
        self.max_bad_fraction = max_bad_fraction
        self.counts: Counter[str] = Counter()
        self.rows_seen = 0
        self.rows_lost = 0
        self._examples: dict[str, Refusal] = {}
        self._known: set[int] = set()
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume and self.path.exists():
            # A last line without a newline was cut off when the run was killed.
            whole, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")
            self.path.write_text(whole + "\n" if whole else "", encoding="utf-8")
            for line in whole.split("\n") if whole else ():
                data = json.loads(line)
                refusal = Refusal(number=data.pop("row"), **data)
                self.rows_lost += self._count(refusal) and refusal.fatal
        else:
            self.path.write_text("")

    def saw(self, rows: int = 1) -> None:
        """Counts rows that were read, refused or not; in a second epoch again, as `add` counts lost rows."""
        self.rows_seen += rows

    def add(self, refusal: Refusal) -> None:
        self.rows_lost += refusal.fatal
        if self._count(refusal) and self.path is not None:
            line = {"row": refusal.number, "id": refusal.id, "file": refusal.file, "column": refusal.column,
                    "reason": refusal.reason, "detail": refusal.detail, "fatal": refusal.fatal}  # fmt: skip
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def check(self, final: bool = False) -> None:
        """Raises TooManyBadRows, with the three commonest reasons, if more than `max_bad_fraction` of the rows read are
        lost. Needs at least 100 rows, except at the end of the catalogue (`final`)."""
        if self.rows_seen < (1 if final else MIN_ROWS_TO_JUDGE):
            return
        if self.rows_lost > self.max_bad_fraction * self.rows_seen:
            where = f" All of them: {self.path}." if self.path else ""
            raise TooManyBadRows(
                f"{self.rows_lost} of {self.rows_seen} rows cannot be used (max_bad_fraction: {self.max_bad_fraction})."
                f" Commonest reasons:\n{self._reasons(3, fatal_only=True)}\nRepair these rows or the schema, or raise"
                f" max_bad_fraction.{where}"
            )

    def summary(self) -> str:
        """Counts per reason, commonest first, with an example of each."""
        if not self.counts:
            return "No row was refused."
        return f"{self.counts.total()} refusals, {self.rows_lost} rows lost of {self.rows_seen}:\n{self._reasons(None)}"

    def _reasons(self, most: int | None, fatal_only: bool = False) -> str:
        counts = Counter({r: n for r, n in self.counts.items() if self._examples[r].fatal or not fatal_only})
        lines = []
        for reason, count in counts.most_common(most):
            example = self._examples[reason]
            place = " ".join(filter(None, [example.file, f"row {example.number}", example.id and f"(id {example.id})"]))
            lines.append(f"  {count} × {reason}, as in {place}: {example.detail}")
        return "\n".join(lines)

    def _count(self, refusal: Refusal) -> bool:
        # A 64-bit hash per refusal: a catalogue with a million bad photos stays within tens of megabytes.
        key = hash((refusal.file, refusal.number, refusal.id, refusal.column, refusal.reason))
        if key in self._known:
            return False
        self._known.add(key)
        self.counts[refusal.reason] += 1
        example = self._examples.get(refusal.reason)
        if example is None or (refusal.fatal and not example.fatal):
            self._examples[refusal.reason] = refusal
        return True
