"""Fine-tune a product tagger on a catalogue.

    hf_tagger finetune                                                           # the embedded quickstart
    hf_tagger finetune my.yaml --output_dir runs/my-shop
    accelerate launch recipes/finetune.py recipes/configs/fashion.yaml --output_dir runs/fashion
    accelerate launch --num_processes 4 recipes/finetune.py my.yaml --training.loader.batch_size 64 --resume
    hf_tagger finetune my.yaml --labels corrected.csv

Every key of the YAML file can be overridden as `--key.sub value`. `--resume` goes on from the newest checkpoint.
`--labels` is short for `--catalog.labels`: tags that a person has corrected, see `hf_tagger find-label-issues`.

On a CPU a run takes all cores; `--training.threads 1`, or OMP_NUM_THREADS, says otherwise. The model folder gets
everything that `pipeline("product-tagging")` needs, metrics.json, and run.log with the details of every step.
"""

import argparse
import sys
from pathlib import Path

from hf_tagger import cli
from hf_tagger.training.arguments import RunSettings, load_run

QUICKSTART = Path(__file__).parent / "configs" / "quickstart.yaml"


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, data = load_run(options.config, overrides)
    settings.check_paths()
    finetune(settings, data, options.resume)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__)
    parser.add_argument("config", metavar="CONFIG", help="YAML file (default: the quickstart)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--labels", metavar="FILE", help="short for --catalog.labels")
    if not arguments or arguments[0].startswith("--"):
        arguments = [str(QUICKSTART), *arguments]
    options, overrides = parser.parse_known_args(arguments)
    return options, overrides + ([f"--catalog.labels={options.labels}"] if options.labels else [])


def finetune(settings: RunSettings, data: dict, resume: bool = False) -> None:
    from hf_tagger.training.batches import Batches
    from hf_tagger.training.budget import fit_to_budget
    from hf_tagger.training.context import start_run
    from hf_tagger.training.data import read_catalog
    from hf_tagger.training.frozen_heads import fit_kernel_head, fit_lexical_head, fit_logit_fusion
    from hf_tagger.training.phases import start_training, train_closed_tags, train_decoder
    from hf_tagger.training.rare_tags import retrain_for_rare_tags
    from hf_tagger.training.refit import out_of_fold_rows
    from hf_tagger.training.report import calibrate, calibrate_written, fused, report
    from hf_tagger.training.saving import save_run
    from hf_tagger.training.starting_model import fit_feature_scales, starting_model

    run = start_run(settings, data, resume)
    catalogue = read_catalog(run)
    model, processor = starting_model(run, catalogue)
    batches = Batches(catalogue, model, processor)
    fit_feature_scales(run, batches)
    fit_lexical_head(run, batches)
    fit_to_budget(run, batches)

    training = start_training(run, batches)
    train_closed_tags(run, training)

    # Heads fitted on what the towers say now that they no longer move.
    retrain_for_rare_tags(run, training)
    fit_kernel_head(run, training)
    out_of_fold = out_of_fold_rows(run, training)
    fit_logit_fusion(run, training, out_of_fold)

    # Scores become probabilities, and get thresholds. The decoder learns from the closed tags as they then are.
    calibrate(run, batches, out_of_fold)
    if run.settings.model.decoder is not None:
        train_decoder(run, training, fused(model, out_of_fold))
    calibrate_written(run, batches)

    save_run(run, training)
    report(run, batches)
    run.accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
