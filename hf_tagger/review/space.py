"""A Space of the Hub that runs the review page."""

from pathlib import Path

from hf_tagger import __version__
from hf_tagger.catalog.strict import ConfigError

APP = '''"""Review the tags that {model} gives the products of {catalogue}."""

import os

from hf_tagger.review.command import build_app
from hf_tagger.review.page import launch

# /data is there, and outlives restarts, where the Space has persistent storage; or name a PostgreSQL database in the
# secret FEEDBACK_URL.
feedback = os.environ.get("FEEDBACK_URL") or ("/data/feedback.db" if os.path.isdir("/data") else "feedback.db")
app = build_app({model!r}, {catalogue!r}, feedback, split={split!r}, speech={speech!r})
launch(app, host=None)
'''

README = """---
title: Review tags
emoji: 🏷️
sdk: gradio
app_file: app.py
---

People review here the tags that `{model}` gives the products of `{catalogue}`.

- Keep this Space private, or protect it: whoever opens it can judge.
- Give it persistent storage, or the secret FEEDBACK_URL (a PostgreSQL URL): else verdicts are lost when it restarts.
- Put `{catalogue}` here too, and let it name a data set on the Hub, or files beside it.
"""


def write_space(folder: str | Path, model: str, catalogue: str, split: str | None = None,
                speech: str | None = None) -> None:
    """Writes app.py, requirements.txt and README.md.

    Raises ConfigError where the folder holds an app already.
    """
    folder = Path(folder)
    if (folder / "app.py").exists():
        raise ConfigError(f"{folder} holds an app.py already: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    values = {"model": model, "catalogue": catalogue, "split": split, "speech": speech}
    extras = "review,speech,postgresql" if speech else "review,postgresql"
    (folder / "app.py").write_text(APP.format(**values), encoding="utf-8")
    (folder / "requirements.txt").write_text(f"hf_tagger[{extras}]=={__version__}\n", encoding="utf-8")
    (folder / "README.md").write_text(README.format(**values), encoding="utf-8")
