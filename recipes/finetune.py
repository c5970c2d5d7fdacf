"""Fine-tune a product tagger on a catalogue.

    accelerate launch recipes/finetune.py                                        # the embedded quickstart
    accelerate launch recipes/finetune.py recipes/configs/fashion.yaml --output_dir runs/fashion
    accelerate launch recipes/finetune.py my.yaml --training.loader.batch_size 64 --resume
    accelerate launch recipes/finetune.py my.yaml --labels corrected.csv

Every key of the YAML file can be overridden as `--key.sub value`. `--resume` goes on from the newest checkpoint.
`--labels` is short for `--catalog.labels`: tags that a person has corrected, see recipes/find_label_issues.py.
"""

import sys
from pathlib import Path

from hf_tagger.training.arguments import load_run
from hf_tagger.training.run import FinetuneRun, exit_status

QUICKSTART = Path(__file__).parent / "configs" / "quickstart.yaml"


def main(arguments: list[str]) -> int:
    config = QUICKSTART
    if arguments and not arguments[0].startswith("--"):
        config, *arguments = arguments
    resume = "--resume" in arguments
    arguments = ["--catalog.labels" if argument == "--labels" else argument for argument in arguments]

    def start() -> FinetuneRun:
        settings, data = load_run(config, [argument for argument in arguments if argument != "--resume"])
        return FinetuneRun(settings, data, resume=resume)

    return exit_status("finetune", start)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
