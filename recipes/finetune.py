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

from hf_tagger.catalog.quarantine import TooManyBadRows
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.arguments import load_run
from hf_tagger.training.loop import Interrupted, NonFiniteLoss
from hf_tagger.training.run import FinetuneRun

QUICKSTART = Path(__file__).parent / "configs" / "quickstart.yaml"


def main(arguments: list[str]) -> int:
    config = QUICKSTART
    if arguments and not arguments[0].startswith("--"):
        config, *arguments = arguments
    resume = "--resume" in arguments
    arguments = ["--catalog.labels" if argument == "--labels" else argument for argument in arguments]
    try:
        settings, data = load_run(config, [argument for argument in arguments if argument != "--resume"])
        run = FinetuneRun(settings, data, resume=resume)
        run.prepare_catalog()
        run.build_model()
        for index, phase in enumerate(settings.phases):
            run.train(index, phase)
        run.augment()
        run.fit_exemplars()
        run.fit_gate()
        run.fit_free_form()
        run.calibrate()
        run.judge()
        run.save()
        run.report()
    except (ConfigError, TooManyBadRows, NonFiniteLoss) as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"finetune: {str(error) or 'interrupted; go on with --resume'}", file=sys.stderr)
        return 130
    run.accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
