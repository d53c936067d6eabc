"""The detectors and the data that a recorded run was made of, found again and compared with its fingerprints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from certify.checks import InputError
from certify.smoothing import SmoothedDetector
from diffad.baselines.choose import fit_baseline
from diffad.claims import Claim
from diffad.data import DataSplit, load_data
from diffad.detector import Detector
from diffad.evaluation import BASELINES
from diffad.plan import load_purifier, smooth
from diffad.registry import load_detector
from diffad.runs import Run
from diffad.sources import built_in_detector


@dataclass(frozen=True)
class Rebuilt:
    """A smoothed detector of a run, made once more; None and the reason where it cannot be.

    `purifier` is the fingerprint of what denoises for it, None if it denoises by itself.
    """

    smoothed: SmoothedDetector | None
    purifier: str | None = None
    reason: str = ""


class RunSources:
    """Data and detectors of a run of `certify`, loaded once.

    Args:
        run: as `read_run` returns it.
        detector, data, purifier: where they are, if not where the run says. What is named here must be what was
            certified, or InputError is raised; what only the run names may be gone, which is reported.
        device: where the detectors compute.

    Attributes:
        split: None where the data cannot be had; `problem` then says why.
        detector: the one that the run is about, with the options it was certified with; None if it cannot be had.
    """

    def __init__(
        self,
        run: Run,
        *,
        detector: str | None = None,
        data: str | None = None,
        purifier: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.run, self.device = run, device
        self._named = {"detector": detector, "data": data, "purifier": purifier}
        entries = [entry for entry in run.manifest["commands"] if entry["command"] == "certify"]
        if not entries:
            raise InputError(f"{run.folder}: holds no result of certify; nothing to verify")
        self.entry: dict[str, Any] = entries[-1]["config"]
        if purifier is not None and self.entry.get("purifier") is None:
            raise InputError("--purifier: the run was certified without one; leave it out")
        self.split: DataSplit | None = None
        self.problem = ""
        try:
            self.split = self._load_split()
        except InputError as error:
            if data is not None:
                raise
            self.problem = f"its data cannot be had: {error}; name it by --data"
        self.detector: Detector | None = None
        self.missing = self.problem
        try:
            self.detector = self._load_main()
        except InputError as error:
            if detector is not None:
                raise
            self.missing = f"its detector cannot be had: {error}; name it by --detector"

    @property
    def main(self) -> str:
        """The name of the detector that the run is about; empty if it could not be loaded."""
        return "" if self.detector is None else self._entry_of(self.detector)

    def rebuilt(self, claim: Claim) -> Rebuilt:
        """Return the smoothed detector that a claim is about, as its first row was planned."""
        name, plan = claim.subject.detector, claim.rows[0][1]
        if self.detector is not None and self.main == claim.entry:
            detector: Detector | None = self.detector
        elif name in BASELINES and self.split is not None:
            detector = fit_baseline(name, self.split.train.images, self.split.validation, plan.radii)
        else:
            detector = None
        if detector is None:
            return Rebuilt(None, reason=self.problem or self.missing)
        difference = self._difference(detector, claim.entry)
        if difference is not None:
            return Rebuilt(None, reason=difference)
        if plan.sigmas:
            return Rebuilt(None, reason="is a sum over noise levels")
        folder = None if claim.purifier is None else self._named["purifier"] or claim.purifier
        try:
            purifier = load_purifier(folder)
            smoothed = smooth(detector, replace(plan, device=self.device), purifier)
        except InputError as error:
            if self._named["purifier"] is not None:
                raise
            return Rebuilt(None, reason=f"its purifier cannot be had: {error}; name it by --purifier")
        return Rebuilt(smoothed, None if purifier is None else purifier.fingerprint())

    def _load_split(self) -> DataSplit:
        data = self.run.manifest["data"]
        options = {
            **data["options"],
            **({} if self._named["data"] is None else {"spec": self._named["data"]}),
        }
        split = load_data(options.pop("spec"), **options)
        if split.fingerprint() != data["fingerprint"]:
            raise InputError(
                f"data: {split.name} is not the data of the run (fingerprint {split.fingerprint()[:12]}, "
                f"not {data['fingerprint'][:12]})"
            )
        return split

    def _load_main(self) -> Detector:
        word = self._named["detector"] or self.entry["detector"]
        folder = str(built_in_detector(may_train=False)) if word is None else str(word)
        detector = load_detector(folder)
        if detector.image_shape is None:
            if self.split is None:
                raise InputError(f"{folder} is fitted on the data, and {self.problem}")
            noise = {f"noise_{k}": self.entry.get(f"fit_{k}") for k in ("sigma", "copies")}
            known = {key: value for key, value in noise.items() if value is not None}
            detector = detector.fit(self.split.train.images, **known)
        change = getattr(detector, "with_options", None)
        if change is not None:
            detector = change(**self.entry["arguments"])
        difference = self._difference(detector, self._entry_of(detector))
        if difference is not None:
            raise InputError(f"{folder}: {difference}")
        return detector

    def _entry_of(self, detector: Detector) -> str:
        """Return the detector's name in the manifest; older runs tell no models of one library apart."""
        known = self.run.manifest["detectors"]
        return detector.row_name if detector.row_name in known else detector.name

    def _difference(self, detector: Detector, entry: str) -> str | None:
        """Return why this is not the detector that was certified, under that name in the manifest, or None."""
        recorded = self.run.manifest["detectors"].get(entry)
        if recorded == detector.fingerprint():
            return None
        if recorded is None:
            return f"is a {detector.name}; the run certifies {', '.join(self.run.manifest['detectors'])}"
        return (
            f"is another {detector.name} than the one certified (fingerprint {detector.fingerprint()[:12]}, "
            f"not {recorded[:12]})"
        )
