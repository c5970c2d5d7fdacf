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
from functools import partial

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import exit_status, start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.distill import (
    DistillSettings,
    ask_teacher,
    collate_as_taught,
    distillation_loss,
    forget_answers,
    load_distillation,
    new_student,
    open_teacher,
    taught_batches,
    teachers_attributes,
)
from hf_tagger.training.frozen_heads import fit_kernel_head, fit_lexical_head, fit_logit_fusion
from hf_tagger.training.phases import start_training, train_phase
from hf_tagger.training.report import calibrate, report
from hf_tagger.training.saving import save_run
from hf_tagger.training.starting_model import fit_feature_scales


def main(arguments: list[str]) -> int:
    def start() -> None:
        if not arguments or arguments[0].startswith("--"):
            raise ConfigError("give a YAML file, such as recipes/configs/distill_text4.yaml")
        config, *overrides = (argument for argument in arguments if argument != "--resume")
        distill(*load_distillation(config, overrides), "--resume" in arguments)

    return exit_status("distill", start)


def distill(settings: DistillSettings, data: dict, resume: bool = False) -> None:
    run = start_run(settings, data, resume)
    teacher, teacher_processor = open_teacher(settings)
    catalogue = read_catalog(run, adopt=partial(teachers_attributes, run, teacher))
    student, processor, copied = new_student(run, catalogue, teacher, teacher_processor)
    answers = ask_teacher(run, catalogue, teacher, teacher_processor)
    loss = distillation_loss(settings.distillation, student, answers)
    del teacher
    collate_view = partial(collate_as_taught, catalogue, processor, teacher_processor)
    batches = Batches(catalogue, student, processor, collate_view)
    fit_feature_scales(run, batches)
    if "lexical_head" in copied:
        student.lexical_head.requires_grad_(False)
    else:
        fit_lexical_head(run, batches)

    training = start_training(run, batches, distillation=loss)
    for index, phase in enumerate(settings.phases):
        train_phase(run, training, index, phase, partial(taught_batches, training, answers))

    fit_kernel_head(run, training)
    fit_logit_fusion(run, training)
    calibrate(run, batches)
    save_run(run, training)
    report(run, batches)
    forget_answers(run)
    run.accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
