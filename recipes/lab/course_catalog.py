"""Another domain: a made-up catalogue of courses, to be tagged by the same recipes.

    python recipes/lab/course_catalog.py --output_dir runs/courses/catalog
    hf_tagger finetune recipes/configs/courses.yaml

Writes courses.csv: id, title, description, subject, level (empty: nobody looked), format, skills. Scores on it show
that nothing in hf_tagger is about clothes; they say nothing about real courses.
"""

import csv
import random
import sys
from pathlib import Path

from hf_tagger import cli

# Of each subject what a title may call it, and the skills that it teaches, with words that give them away.
SUBJECTS = {
    "Data science": (["Data Analysis", "Machine Learning", "Applied Statistics"],
                     {"Python": "notebooks in Python", "Statistics": "tests and confidence intervals",
                      "SQL": "queries on large tables"}),
    "Design": (["Interface Design", "Typography", "Brand Identity"],
               {"Prototyping": "clickable mock-ups", "Typesetting": "grids and type", "User research": "interviews"}),
    "Finance": (["Corporate Finance", "Investing", "Bookkeeping"],
                {"Accounting": "balance sheets", "Valuation": "discounted cash flows", "Risk": "hedging of losses"}),
    "Languages": (["Spanish", "Business English", "Mandarin"],
                  {"Speaking": "conversation in small groups", "Writing": "letters and essays",
                   "Listening": "podcasts and films"}),
    "Cooking": (["Bread Baking", "Plant-based Cooking", "Pastry"],
                {"Baking": "ovens and doughs", "Knife work": "cutting and carving", "Menu planning": "meals for days"}),
}
LEVELS = {"Beginner": ("Introduction to {}", "No previous knowledge is needed."),
          "Intermediate": ("{} in Practice", "You should know the basics."),
          "Advanced": ("Mastering {}", "For people with years of experience.")}
FORMATS = {"Self-paced": "Watch the lessons whenever you like.", "Live online": "We meet on video every week.",
           "In person": "Classes are held on our campus."}


def courses(rows: int, seed: int = 0):
    """The catalogue's rows, the same for the same arguments."""
    for number in range(rows):
        rng = random.Random(f"course {seed} {number}")
        subject, level, form = rng.choice(list(SUBJECTS)), rng.choice(list(LEVELS)), rng.choice(list(FORMATS))
        names, skills = SUBJECTS[subject]
        taught = rng.sample(list(skills), rng.choice((1, 2)))
        title, sentence = LEVELS[level]
        # The level stands in the title or in the text, not always in both.
        plain = rng.random() < 0.3
        sentences = [f"You will work with {' and '.join(skills[skill] for skill in taught)}.", FORMATS[form]]
        if plain or rng.random() < 0.5:
            sentences.append(sentence)
        rng.shuffle(sentences)
        name = rng.choice(names)
        yield {"id": f"C{number:05d}", "title": name if plain else title.format(name),
               "description": " ".join(sentences), "subject": subject, "format": form, "skills": "|".join(taught),
               "level": "" if rng.random() < 0.1 else level}


@cli.recipe
def main(arguments: list[str]) -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--output_dir", type=Path, default="runs/courses/catalog", help="folder for courses.csv")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    path = options.output_dir / "courses.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "title", "description", "subject", "level", "format", "skills"])
        writer.writeheader()
        writer.writerows(courses(options.rows, options.seed))
    print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
