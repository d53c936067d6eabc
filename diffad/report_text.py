"""What a report says in words: the result, what was measured, and what it does not say."""

from __future__ import annotations

import json
from typing import Any

from certify.text import short_text
from diffad import page
from diffad.conclusion import warning
from diffad.conditions import Subject
from diffad.how_sure import chance_of_error, which_images
from diffad.metric_rows import Row
from diffad.plots import pick_radius
from diffad.ranking import HALF
from diffad.runs import Run
from diffad.subject import MEDIAN, number_text
from diffad.tables import ESTIMATED, cell_text, find, over_sets, strongest, subject_of, total_alpha

WAYS = {
    "none": "the detector's own score, without noise: its proven Lipschitz constant gives the bounds",
    "input": "median score of the image plus Gaussian noise",
    "denoise": "median score of the image plus Gaussian noise, denoised in one step",
    "reference": "median error of the image against reconstructions of its noisy versions",
    "sure": "median estimate, from a noisy version alone, of the squared error of its reconstruction",
}


def lead(run: Run, rows: list[Row]) -> str:
    """The result in one sentence a subject."""
    results = [(subject.label, _sentence(run, subject, rows)) for subject in run.main]
    best = _best_beside(run, rows)
    return page.leading([*results, *([("Without a network", best)] if best else [])])


def _best_beside(run: Run, rows: list[Row]) -> str:
    """The network-free row that certifies most at the first subject's radius: what a network has to beat."""
    radius = pick_radius(run, run.main[0])
    wanted = {"condition": "certified", "norm": "l2", "radius": radius, "side": "both"}
    others = [
        strongest([r for r in rows if subject_of(r) == s], **wanted)
        for s in run.subjects
        if s not in run.main
    ]
    best = max((row for row in others if row), key=lambda row: float(row["auroc"]), default=None)
    if best is None or best["auroc"] <= HALF:
        return ""
    return f"{subject_of(best).label} certifies {cell_text(best)} at L2 size {short_text(best['radius'])}."


def _sentence(run: Run, subject: Subject, rows: list[Row]) -> str:
    own = [row for row in rows if subject_of(row) == subject]
    clean, radius = find(own, condition="clean"), pick_radius(run, subject)
    certified = strongest(own, condition="certified", norm="l2", radius=radius, side="both")
    attacked = strongest(own, condition="attack", norm="l2", radius=radius, side="both")
    text = f"AUROC {cell_text(clean)} without an attacker" if clean else "clean AUROC not measured"
    if certified is None:
        return f"{text}; nothing was certified in this run."
    size = short_text(certified["radius"])
    if certified["auroc"] <= HALF:
        text += f"; against attacks of L2 size {size} nothing is certified"
        if clean and (doubt := warning(float(clean["auroc"]), [certified])):
            text += f" ({doubt})"
    else:
        text += f"; at least {cell_text(certified)} whatever an attack of L2 size {size} does to every image"
    if attacked is None:
        return f"{text}."
    if attacked.get("failed_checks"):
        return f"{text}; our attack did not converge ({', '.join(attacked['failed_checks'])})."
    return f"{text}; our attack brought it down to {cell_text(attacked)}."


def measured(run: Run, rows: list[Row]) -> str:
    """Data, detector, way of smoothing, sigma, n and alpha."""
    data, counted = run.manifest["data"], rows[0]
    size = f"{data['resolution']} x {data['resolution']} pixels"
    pairs = [
        ("Data", f"{data['name']}, {size}, {'grey' if data['channels'] == 1 else 'colour'}"),
        ("Test images", f"{counted['normals']} normal, {counted['anomalies']} anomalous"),
    ]
    if about := over_sets(counted):
        pairs.append(("Numbers", about.lstrip(", ") + ", without weights"))
    for subject in run.main:
        way = subject.score.smoothing
        pairs.append(("Detector", f"{subject.detector}, score {subject.score_name}"))
        certified = strongest([r for r in rows if subject_of(r) == subject], condition="certified")
        # an attack alone has no bounds that a constant could give
        said = _way(run, subject)
        pairs.append(("Smoothing", f"{way}: {said if certified else said.partition(':')[0]}"))
        if subject.sigma is not None:
            pairs.append(("Noise", f"σ = {subject.noise}"))
        if certified and (alpha := total_alpha(certified)) is not None:
            pairs.append(("Draws an image", f"n = {certified['n']}"))
            pairs.append(("Chance of error", chance_of_error(run, certified, alpha)))
    if beside := [subject.label for subject in run.subjects if subject not in run.main]:
        pairs.append(("Beside it", f"without a network: {'; '.join(beside)}"))
    return page.facts(pairs)


def _way(run: Run, subject: Subject) -> str:
    """What a way of smoothing certifies, with the percentile where that is not the median."""
    return WAYS[subject.score.smoothing].replace("median", _percentile(run, subject))


def _percentile(run: Run, subject: Subject) -> str:
    share = run.percentile(subject)
    return "median" if share == MEDIAN else f"percentile {number_text(share)} of the"


def limits(run: Run) -> str:
    """What the numbers must not be taken for."""
    side = run.manifest["data"]["resolution"]
    items = [
        "Covered are changes that are small in L2 over the whole image, each image on its own. Linf results, "
        "where shown, come from attacks and certify nothing.",
        which_images(run),
        "An attacked number is what our attack reached. A better attack may reach less, down to the certified one; "
        f"{ESTIMATED}. "
        'Where a mandatory check of the attack failed, the table says "not converged" and names the check.',
        f"Radii are in pixel values of [0, 1] at {side} x {side} pixels and are not comparable with radii at "
        "another resolution.",
        "AUROC needs no threshold, a deployed detector does: see the rates at the threshold.",
    ]
    if noisy := [subject for subject in run.subjects if subject.score.smoothing != "none"]:
        items.append(
            f"What is certified is the {_percentile(run, noisy[0])} score over fresh noise. A single noisy score, or "
            "fixed noise that the attacker knows, is another detector. "
            "Rounding in floating point is not part of the proof."
        )
    return page.bullets(items)


def probe(data: dict[str, Any]) -> str:
    """Outcome of the near-duplicate probe, and the L2 sizes of the defects where they are known."""
    probe = data.get("probe") or {}
    if not probe:
        return page.paragraph("No near-duplicate probe was recorded for this data set.", "note")
    text = (
        "A test image that nearly repeats a training image makes a detector look better than it is. The probe "
        "scores each test image by its closest match in the training set, in fine structure alone. An AUROC "
        "near .5 means that copies give nothing away; near 1, that looking for the closest match would be "
        "enough. It also rises where normal images simply look alike, as digits of one class do."
    )
    names = {
        "near_duplicate_auroc": "AUROC of the probe",
        "near_duplicates_normal": "Normal test images with a near-duplicate in train",
        "near_duplicates_anomalous": "Anomalous test images with one",
        "test_images_in_bank": "Test images among the normals that the detector keeps",
        "in_bank_first": "Their names, the first few",
        "seen_in_training": "What the training knew of the outlier sets",
        "roughness_auroc": "Roughness alone against each outlier set, AUROC or its complement",
        "roughness_auroc_resampled": "Roughness alone against resampled copies of the normals",
        "cue_resampling": "AUROC of the detector against such copies",
        "cue_channel_order": "AUROC of the detector against copies with blue and red exchanged",
        "defect_l2_min": "L2 size of the defects, least",
        "defect_l2_median": "L2 size of the defects, median",
        "defect_l2_max": "L2 size of the defects, largest",
    }
    pairs = [(names.get(key, key.replace("_", " ")), _number(value)) for key, value in probe.items()]
    return page.paragraph(text) + page.facts(pairs)


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_number(one)}" for name, one in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def made(run: Run) -> str:
    """Commands, time, machine and commit; the manifest on demand."""
    pairs = []
    for entry in run.manifest["commands"]:
        machine, git = entry["hardware"], entry["git"]
        commit = "unknown" if git is None else git["commit"][:12] + (" with changes" if git["dirty"] else "")
        typed = " ".join(entry["argv"]) or entry["command"]
        machine_text = f"{machine['cores']} cores of {machine['cpu']}, device {machine['device']}"
        processes = "1 process" if entry["world_size"] == 1 else f"{entry['world_size']} processes"
        pairs.append(("Command", typed))
        pairs.append(("", f"{entry['seconds']:g} s in {processes} on {machine_text}; commit {commit}"))
    manifest = page.preformatted(json.dumps(run.manifest, indent=2))
    return page.facts(pairs) + page.folded("Manifest: options, versions, seeds, hardware", manifest)
