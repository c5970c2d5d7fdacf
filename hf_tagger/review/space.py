"""A Space of the Hub that runs the review page."""

from collections.abc import Sequence
from pathlib import Path

from hf_tagger import __version__
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.model.urls import without_credentials

HERE = Path(__file__).parent


def write_space(folder: str | Path, model: str, catalogue: str, *, speech: str | None = None,
                config: str | None = None, predictions: str | None = None, overrides: Sequence[str] = (),
                **options: str | int | None) -> None:
    """Writes app.py, requirements.txt and README.md. The arguments, and `options`, are those of `app.build_app`.

    Raises ConfigError if the folder has an app.py already, or if the files would tell a password.
    """
    for told in (catalogue, predictions or "", *overrides):
        if without_credentials(told) != told:
            raise ConfigError(f"{without_credentials(told)}: name and password would be in the Space's files. "
                              "Write them as ${SHOP_LOGIN}, and set a secret of that name in the Space")
    folder = Path(folder)
    if (folder / "app.py").exists():
        raise ConfigError(f"{folder} holds an app.py already: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    options |= {"speech": speech, "config": config, "predictions": predictions, "overrides": list(overrides)}
    values = {"model": model, "catalogue": catalogue,
              "options": ",\n                ".join(f"{name}={value!r}" for name, value in options.items()),
              "files": " and ".join(f"`{file}`" for file in (catalogue, config, predictions) if file)}
    for name, template in (("app.py", "space_app.py.template"), ("README.md", "space_readme.md.template")):
        text = (HERE / template).read_text(encoding="utf-8").format(**values)
        (folder / name).write_text(text, encoding="utf-8")
    extras = "review,speech,postgresql" if speech else "review,postgresql"
    (folder / "requirements.txt").write_text(f"hf_tagger[{extras}]=={__version__}\n", encoding="utf-8")
