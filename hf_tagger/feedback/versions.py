"""Versions of a model: each with its origin, and which one is in use."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hf_tagger.catalog.strict import ConfigError

LINEAGE, CURRENT = "lineage.json", "current"


@dataclass(frozen=True)
class Lineage:
    version: int
    parent: int | None  # the first version has none
    made_by: str  # what made it, in a few words
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))  # when, ISO 8601
    verdicts: int = 0  # how many verdicts were settled when it was made
    # {"before" | "after": {metric: value}} of the parent and of this version on the same products.
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    added_tags: dict[str, list[str]] = field(default_factory=dict)  # {attribute: [tags]} that the parent did not know


class Versions:
    """A folder of model folders called 1, 2, 3 …, and a link `current` to the one in use, for `pipeline(model=…)`.
    Versions are never changed or deleted; a rollback moves the link."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @property
    def current(self) -> int | None:
        link = self.folder / CURRENT
        return int(os.readlink(link)) if link.is_symlink() else None

    def path(self, version: int) -> Path:
        return self.folder / str(version)

    def list(self) -> list[Lineage]:
        """In the order of their numbers."""
        found = [Lineage(**json.loads(path.read_text(encoding="utf-8"))) for path in self.folder.glob(f"*/{LINEAGE}")
                 if path.parent.name.isdecimal()]
        return sorted(found, key=lambda lineage: lineage.version)

    def start(self, model: str | Path) -> None:
        """Copies a model folder as version 1, unless there is a version already.

        Raises ConfigError if it is no model folder.
        """
        if self.list():
            return
        if not (Path(model) / "config.json").is_file():
            raise ConfigError(f"{model} is no model folder: there is no config.json")
        pending = self.pending()
        shutil.copytree(model, pending, ignore=shutil.ignore_patterns("checkpoints", "catalog", "evaluation", LINEAGE))
        self.add(pending, made_by=f"copy of {Path(model).name}")

    def pending(self) -> Path:
        """An empty place for the folder of a candidate for the next version; an earlier attempt is deleted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pending = self.folder / "pending"
        shutil.rmtree(pending, ignore_errors=True)
        return pending

    def add(self, model: Path, made_by: str, **about: Any) -> Lineage:
        """Moves a finished model folder here as the next version, and makes it the current one."""
        version = max((lineage.version for lineage in self.list()), default=0) + 1
        lineage = Lineage(version, self.current, made_by, **about)
        text = json.dumps(asdict(lineage), indent=1, ensure_ascii=False)
        (model / LINEAGE).write_text(text + "\n", encoding="utf-8")
        os.rename(model, self.path(version))
        self.use(version)
        return lineage

    def use(self, version: int) -> None:
        """Makes a version the current one, atomically: the link always leads to some version.

        Raises ConfigError if there is no such version.
        """
        known = [lineage.version for lineage in self.list()]
        if version not in known:
            listed = ", ".join(map(str, known)) or "none"
            raise ConfigError(f"there is no version {version} in {self.folder}; there are: {listed}")
        link = self.folder / f"{CURRENT}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(str(version))
        os.replace(link, self.folder / CURRENT)
