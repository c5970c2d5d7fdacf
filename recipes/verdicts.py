"""Take reviewers' verdicts out of a feedback store into a parquet file, or into a store from such a file.

    hf_tagger verdicts feedback.db --export verdicts.parquet
    hf_tagger verdicts postgresql://ana@host/shop --import verdicts.parquet

FEEDBACK is the path or URL of the store that `hf_tagger review` writes to. A file is taken in as a whole or not at all;
a verdict that the store has already counts once.
"""

import sys
from pathlib import Path

from hf_tagger import cli
from hf_tagger.catalog.strict import ConfigError


@cli.recipe
def main(arguments: list[str]) -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("feedback", metavar="FEEDBACK", help="path or URL of the store")
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--export", metavar="FILE", type=Path, help="parquet file to write")
    one.add_argument("--import", dest="file", metavar="FILE", type=Path, help="parquet file to read")
    options = parser.parse_args(arguments)
    if options.file and not options.file.is_file():
        raise ConfigError(f"there is no file {options.file}")
    if options.export and "://" not in options.feedback and not Path(options.feedback).is_file():
        raise ConfigError(f"there is no store {options.feedback}")
    try:
        from hf_tagger.feedback.exchange import export_verdicts, import_verdicts
        from hf_tagger.feedback.store import FeedbackStore
    except ModuleNotFoundError as error:
        raise ConfigError(f"verdicts need more than the base installation: pip install 'hf_tagger[feedback]' ({error})"
                          ) from error
    with FeedbackStore(options.feedback) as store:
        if options.export:
            print(f"{export_verdicts(store, options.export)} verdicts are in {options.export}")
        else:
            before = len(store.verdicts())
            count = import_verdicts(store, options.file)
            print(f"{count} verdicts in {options.file}: {len(store.verdicts()) - before} are new to {store.url}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
