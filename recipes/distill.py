"""Train a smaller student to say what a trained tagger says, on labelled and unlabelled products alike.

    accelerate launch recipes/distill.py recipes/configs/distill_text4.yaml
    accelerate launch recipes/distill.py recipes/configs/distill_mobilenet.yaml --distillation.teacher runs/my-shop

The YAML file is that of recipes/finetune.py with `distillation:` (hf_tagger/training/distill_loss.py) beside `model:`,
which describes the student: `text_backbone: teacher` and `vision_backbone: teacher` start from the teacher's own
towers, `distillation.text_layers` from some of its layers. Every key can be overridden as `--key.sub value`; `--resume`
goes on from the newest checkpoint. The teacher runs once over the training split; its answers are kept in
`distillation.folder`. Products of which no tags are known (empty cells, `when_missing: unknown`) are learned from all
the same.
"""

import sys

from hf_tagger.catalog.quarantine import TooManyBadRows
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.distill import DistillRun, load_distillation
from hf_tagger.training.loop import Interrupted, NonFiniteLoss


def main(arguments: list[str]) -> int:
    resume = "--resume" in arguments
    try:
        if not arguments or arguments[0].startswith("--"):
            raise ConfigError("give a YAML file, such as recipes/configs/distill_text4.yaml")
        config, *overrides = (argument for argument in arguments if argument != "--resume")
        settings, data = load_distillation(config, overrides)
        run = DistillRun(settings, data, resume=resume)
        run.prepare_catalog()
        run.build_model()
        for index, phase in enumerate(settings.phases):
            run.train(index, phase)
        run.fit_exemplars()
        run.fit_gate()
        run.calibrate()
        run.save()
        run.report()
    except (ConfigError, TooManyBadRows, NonFiniteLoss) as error:
        print(f"distill: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"distill: {str(error) or 'interrupted; go on with --resume'}", file=sys.stderr)
        return 130
    run.accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
