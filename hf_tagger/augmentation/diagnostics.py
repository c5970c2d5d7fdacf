"""How realistic synthetic vectors are: distances, manifold precision and recall per tag, and a picture."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from hf_tagger.augmentation.vectors import TaggedVectors

NEIGHBOURS = 3


def precision_recall(real: Tensor, synthetic: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Improved precision and recall of generative models (arXiv 1904.06991).

    A vector lies on a set's manifold if it is within the distance from one of the set's vectors to that vector's k-th
    nearest neighbour in the set. Precision: share of synthetic vectors [M, H] on the manifold of the real ones [N, H];
    recall: share of real vectors on the manifold of the synthetic ones. Raises ValueError for a set without k
    neighbours.
    """
    if min(len(real), len(synthetic)) <= neighbours:
        raise ValueError(f"precision and recall need more than {neighbours} vectors of each kind, got {len(real)} "
                         f"real and {len(synthetic)} synthetic ones")
    distances = torch.cdist(synthetic, real)
    radius_real, radius_synthetic = (_without_self(vectors).kthvalue(neighbours, dim=1).values
                                     for vectors in (real, synthetic))
    precision = (distances <= radius_real[None]).any(1).float().mean()
    recall = (distances <= radius_synthetic[:, None]).any(0).float().mean()
    return float(precision), float(recall)


def _without_self(vectors: Tensor) -> Tensor:
    # Without matrix products: their rounding gives copies of a vector a distance above 0.
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(torch.inf)


def compare(data: TaggedVectors, tags: dict[str, int], synthetic: Tensor, tag_labels: Tensor,
            limit: int = 1000) -> dict[str, dict[str, float]]:
    """Per tag, {"real", "synthetic" (numbers of vectors), "synthetic_distance" (mean distance to the nearest real
    vector of the tag, 0 for a copy), and, with enough vectors, "real_distance" (the same among real ones),
    "precision", "recall"}. tags: {name: column}; synthetic [M, H] with tag_labels [M, T]; at most `limit` vectors of a
    tag are compared."""
    report = {}
    for name, column in tags.items():
        rows = data.rows_with(column)
        real = data.batch(rows[:: len(rows) // limit + 1])[0]
        made = synthetic[tag_labels[:, column] == 1][:limit]
        if not len(real) or not len(made):
            continue
        report[name] = {"real": len(rows), "synthetic": len(made),
                        "synthetic_distance": float(torch.cdist(made, real).amin(1).mean())}
        if len(real) > 1:
            report[name]["real_distance"] = float(_without_self(real).amin(1).mean())
        if min(len(real), len(made)) > NEIGHBOURS:
            report[name] |= dict(zip(("precision", "recall"), precision_recall(real, made), strict=True))
    return report


def picture(path: Path, data: TaggedVectors, tags: dict[str, int], synthetic: Tensor, tag_labels: Tensor,
            limit: int = 300) -> None:
    """Draws real (dots) and synthetic (crosses) vectors of up to ten tags on the real ones' two principal axes."""
    chosen = dict(list(tags.items())[:10])
    real = {name: data.batch(data.rows_with(column)[:limit])[0] for name, column in chosen.items()}
    every = torch.cat(list(real.values()))
    mean = every.mean(0)
    axes = torch.linalg.svd(every - mean, full_matrices=False).Vh[:2].T
    figure = Figure(figsize=(9, 7), layout="constrained")
    plot = figure.add_subplot()
    for index, (name, column) in enumerate(chosen.items()):
        made = synthetic[tag_labels[:, column] == 1][:limit]
        points = (made - mean) @ axes
        plot.scatter(points[:, 0], points[:, 1], marker="x", s=18, linewidth=0.8, alpha=0.5, color=f"C{index}")
        points = (real[name] - mean) @ axes
        plot.scatter(points[:, 0], points[:, 1], s=36, edgecolor="black", linewidth=0.6, color=f"C{index}",
                     label=f"{name} ({len(data.rows_with(column))} real)")
    plot.set(xlabel="first principal axis", ylabel="second principal axis", title="real (dots) and synthetic (crosses)")
    plot.legend(fontsize=8)
    figure.savefig(path, dpi=120)
