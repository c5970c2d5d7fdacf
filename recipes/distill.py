"""Train a smaller student to say what a trained tagger says, on labelled and unlabelled products alike.

    accelerate launch recipes/distill.py recipes/configs/distill_text4.yaml
    accelerate launch recipes/distill.py recipes/configs/distill_text3.yaml --distillation.teacher runs/my-shop

The YAML file is that of recipes/finetune.py with `distillation:` (hf_tagger/training/settings.py) beside `model:`,
which describes the student: `text_backbone: teacher` and `vision_backbone: teacher` start from the teacher's own
towers, `distillation.text_layers` from some of its layers. Every key can be overridden as `--key.sub value`; `--resume`
goes on from the newest checkpoint. The teacher runs once over the training split; its answers are kept in
`distillation.folder`. Products of which no tags are known (empty cells, `when_missing: unknown`) are learned from all
the same.
"""

import sys
from functools import partial

from hf_tagger import cli
from hf_tagger.training.arguments import DistillSettings, load_run


@cli.recipe
def main(arguments: list[str]) -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("config", metavar="CONFIG", help="YAML file, such as recipes/configs/distill_text4.yaml")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    options, overrides = parser.parse_known_args(arguments)
    settings, data = load_run(options.config, overrides, DistillSettings)
    settings.check_paths()
    distill(settings, data, options.resume)


def distill(settings: DistillSettings, data: dict, resume: bool = False) -> None:
    from hf_tagger.training import distill as steps
    from hf_tagger.training.batches import Batches
    from hf_tagger.training.context import start_run
    from hf_tagger.training.data import read_catalog
    from hf_tagger.training.frozen_heads import fit_kernel_head, fit_lexical_head, fit_logit_fusion
    from hf_tagger.training.phases import start_training, train_phases
    from hf_tagger.training.report import calibrate, report
    from hf_tagger.training.saving import save_run
    from hf_tagger.training.starting_model import fit_feature_scales

    run = start_run(settings, data, resume)
    teacher, teacher_processor = steps.open_teacher(settings)
    catalogue = read_catalog(run, adopt=partial(steps.teachers_attributes, run, teacher))
    student, processor, copied = steps.new_student(run, catalogue, teacher, teacher_processor)
    answers = steps.ask_teacher(run, catalogue, teacher, teacher_processor)
    loss = steps.distillation_loss(settings.distillation, student, answers)
    del teacher
    collate_view = partial(steps.collate_as_taught, catalogue, processor, teacher_processor)
    batches = Batches(catalogue, student, processor, collate_view)
    fit_feature_scales(run, batches)
    if "lexical_head" in copied:
        student.lexical_head.requires_grad_(False)
    else:
        fit_lexical_head(run, batches)

    training = start_training(run, batches, distillation=loss)
    train_phases(run, training, partial(steps.TaughtBatches, training, answers))

    fit_kernel_head(run, training)
    fit_logit_fusion(run, training)
    calibrate(run, batches)
    save_run(run, training)
    report(run, batches)
    steps.forget_answers(run)
    run.accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
