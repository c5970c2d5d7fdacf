"""Train a smaller student to say what a trained tagger says, on labelled and unlabelled products alike.

    accelerate launch recipes/distill.py recipes/configs/distill_text4.yaml
    accelerate launch recipes/distill.py recipes/configs/distill_text3.yaml --distillation.teacher runs/my-shop

The YAML file is that of recipes/finetune.py with `distillation:` (hf_tagger/training/distill_loss.py) beside `model:`,
which describes the student: `text_backbone: teacher` and `vision_backbone: teacher` start from the teacher's own
towers, `distillation.text_layers` from some of its layers. Every key can be overridden as `--key.sub value`; `--resume`
goes on from the newest checkpoint. The teacher runs once over the training split; its answers are kept in
`distillation.folder`. Products of which no tags are known (empty cells, `when_missing: unknown`) are learned from all
the same.
"""

import sys

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.distill import DistillRun, load_distillation
from hf_tagger.training.run import exit_status


def main(arguments: list[str]) -> int:
    def start() -> DistillRun:
        if not arguments or arguments[0].startswith("--"):
            raise ConfigError("give a YAML file, such as recipes/configs/distill_text4.yaml")
        config, *overrides = (argument for argument in arguments if argument != "--resume")
        settings, data = load_distillation(config, overrides)
        return DistillRun(settings, data, resume="--resume" in arguments)

    return exit_status("distill", start)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
