"""The judge of this product: LlavaGuard on SGLang, asked as it was trained, read strictly, every ask kept."""

import threading
from dataclasses import replace

import structlog

from intake.picture import View
from moderation.errors import (
    JudgeTimeout,
    MalformedAnswer,
    Misuse,
    RuntimeFault,
    RuntimeUnavailable,
    VetlineError,
)
from moderation.policy import NONE_APPLYING, PolicyRevision
from moderation.verdict import Basis, Judgement, Rating, Rung
from worker.judges import prompts
from worker.judges.answer import ParsedAnswer
from worker.judges.ask_session import AskSession, Reached, brief_form, full_form, rest_form
from worker.judges.calibration import Calibration, read_calibrations
from worker.judges.deadline import Deadline
from worker.judges.ladder import Ladder, LadderStep
from worker.judges.prompt_tokens import PromptTokens
from worker.judges.protocol import Runtime
from worker.judges.sampling import PROFILES, Profile
from worker.judges.server_identity import ServerIdentity, identify
from worker.judges.settings import SglangSettings, settings_from_environment
from worker.judges.sglang_client import EncodedImage, SglangClient

log = structlog.get_logger()

# Tokens of a brief answer around the category's name; a name has at most as many tokens as bytes.
BRIEF_TOKENS = 16


class SglangJudge:
    """Called from many threads at once; one client serves them all. See protocol.Judge."""

    name = "sglang"
    needs_pixels = False

    def __init__(self, settings: SglangSettings | None = None) -> None:
        self.settings = settings or settings_from_environment()
        key = self.settings.api_key
        self._client = SglangClient(
            self.settings.url,
            keep_alive_s=self.settings.keep_alive_s,
            connect_timeout_s=self.settings.connect_timeout_s,
            api_key=key.get_secret_value() if key else None,
        )
        self._tokens = PromptTokens(self._client) if self.settings.prompt_as == "ids" else None
        self._ladder = Ladder.parse(self.settings.ladder)
        path = self.settings.calibration
        self._calibrations = read_calibrations(path) if path else ()
        self._last_identity: tuple[int, ServerIdentity] | None = None  # as of so many losses of the client
        self._identifying = threading.Lock()

    def check(self) -> None:
        deadline = Deadline.after(self.settings.check_timeout_s)
        try:
            reply = self._client.call("GET", "/health", deadline=deadline)
            if reply.status != 200:
                self._last_identity = None
                raise RuntimeUnavailable(f"SGLang at {self.settings.url} is not ready: HTTP {reply.status}")
            self._identified(deadline)
        except (JudgeTimeout, RuntimeFault) as error:
            raise RuntimeUnavailable(f"SGLang at {self.settings.url} is not well: {error}") from error

    def basis(self) -> Basis | None:
        if (identity := self._identity) is None:
            return None
        return Basis(
            judge=self.name,
            model=self.settings.model or identity.model,
            template_mode=self.settings.mode.value,
            rationale=self.settings.wants_rationale == "always",
        )

    def runtime(self) -> Runtime:
        if (identity := self._identity) is None:
            return Runtime(
                self.name,
                "not asked yet" if self._last_identity is None else "lost",
                model=self.settings.model,
            )
        model = self.settings.model or identity.model
        return Runtime(self.name, "ready", identity.version, model, identity.at_once)

    def judge(self, view: View, policy: PolicyRevision, *, timeout_s: float) -> Judgement:
        deadline = Deadline.after(timeout_s)
        prompt = prompts.render(self.settings.mode, policy.prompt)
        identity = self._identity_to_judge_with(deadline)
        session = AskSession(
            client=self._client,
            image=EncodedImage.of(view.encoded, view.media_type),
            prompt=prompt,
            names=policy.category_names,
            deadline=deadline,
            view=view.name,
            chatml=self.settings.mode.is_chatml,
            salvage=self._ladder.salvage,
            wants_p=self.settings.p_unsafe == "generation" or self._asks_brief_with_logprobs,
            notes_rating=identity.notes_rating,
            scaled_logprobs=identity.scaled_logprobs,
            tokens=self._tokens,
        )
        try:
            reached = self._reach(session)
        except VetlineError as error:
            error.asks = tuple(session.asks)
            raise
        return self._judgement(reached, session, policy, identity)

    def close(self) -> None:
        self._client.close()

    # --- what runs at the other end

    @property
    def server_version(self) -> str | None:
        """As the server says; None before it was asked."""
        identity = self._identity
        return identity.version if identity else None

    @property
    def _identity(self) -> ServerIdentity | None:
        known = self._last_identity
        return known[1] if known is not None and known[0] == self._client.losses else None

    def _identified(self, deadline: Deadline) -> ServerIdentity:
        """What the server is, asked once for each start: anew after a connection was refused or dropped."""
        if known := self._identity:
            return known
        if not self._identifying.acquire(timeout=max(deadline.left_s(), 0)):
            raise RuntimeUnavailable(f"SGLang at {self.settings.url} does not say what it is")
        try:
            if known := self._identity:
                return known
            losses = self._client.losses
            identity = identify(self._client, deadline=deadline)
            self._last_identity = losses, identity
            log.info("server_identified", url=self.settings.url, version=identity.version)
            return identity
        finally:
            self._identifying.release()

    def _identity_to_judge_with(self, deadline: Deadline) -> ServerIdentity:
        """As _identified; but a wrong server is no fault of the item, so the claim is given back."""
        try:
            return self._identified(deadline)
        except (Misuse, JudgeTimeout, RuntimeFault) as error:
            raise RuntimeUnavailable(str(error)) from error

    # --- one image

    @property
    def _asks_brief_with_logprobs(self) -> bool:
        return self.settings.p_unsafe == "question" and self.settings.wants_rationale != "always"

    @property
    def _full_profile(self) -> Profile:
        name = "greedy" if self.settings.profile == "fast" else self.settings.profile
        return PROFILES[name].limited(self.settings.max_new_tokens)

    def _full_steps(self) -> tuple[LadderStep, ...]:
        return self._ladder.steps(self._full_profile)

    def _reach(self, session: AskSession) -> Reached:
        if self.settings.wants_rationale == "always":
            asked = session.question() if self.settings.p_unsafe == "question" else None
            return _with_p(session.climb(full_form(session.names), self._full_steps()), asked)
        brief = self._brief(session)
        if brief is None:
            return session.climb(full_form(session.names), self._full_steps())
        if self.settings.wants_rationale == "never" or self._may_skip(brief):
            return brief
        return self._with_rationale(session, brief)

    def _brief(self, session: AskSession) -> Reached | None:
        """Rating and category alone; None where they could not be read, and the whole is asked instead."""
        fast = PROFILES["fast"]
        longest = max(len(name.encode()) for name in session.names)
        profile = fast.limited(max(fast.max_new_tokens, BRIEF_TOKENS + longest))
        try:
            return session.climb(brief_form(session.names), self._ladder.steps(profile))
        except MalformedAnswer:
            return None

    def _may_skip(self, brief: Reached) -> bool:
        if brief.reading.rating is not Rating.SAFE:
            return False
        return brief.p_unsafe is None or brief.p_unsafe < self.settings.skip_below

    def _with_rationale(self, session: AskSession, brief: Reached) -> Reached:
        """The brief answer with its rationale; its rating stands, also where no rationale can be had."""
        try:
            whole = session.climb(rest_form(brief.reading), self._full_steps())
        except MalformedAnswer:
            reading = ParsedAnswer(brief.reading.rating, brief.reading.category, "", truncated=True)
            return replace(brief, reading=reading, rung=Rung.SALVAGE)
        return _with_p(whole, brief.p_unsafe)

    def _judgement(
        self, reached: Reached, session: AskSession, policy: PolicyRevision, identity: ServerIdentity
    ) -> Judgement:
        reading = reached.reading
        model = self.settings.model or identity.model
        calibration = self._calibration(model, policy)
        calibrated = (
            calibration.apply(reached.p_unsafe) if calibration and reached.p_unsafe is not None else None
        )
        return Judgement(
            rating=reading.rating,
            category=reading.category,
            rationale=reading.rationale,
            rationale_truncated=reading.truncated,
            needs_review=self._needs_review(reached, calibrated),
            p_unsafe=reached.p_unsafe,
            p_unsafe_calibrated=calibrated,
            rung=reached.rung,
            finish_reason=reached.finish_reason,
            raw_output=reached.raw,
            asks=tuple(session.asks),
            judge=self.name,
            model=model,
            weights_sha256=self.settings.weights_sha256,
            runtime="sglang",
            runtime_version=identity.version,
            template_mode=self.settings.mode.value,
            prompt_sha256=prompts.digest(reached.prompt),
            sampling={"profile": reached.profile, **reached.sampling},
        )

    def _calibration(self, model: str, policy: PolicyRevision) -> Calibration | None:
        wanted = {"model": model, "mode": self.settings.mode.value, "policy": policy.ref}
        return next((c for c in self._calibrations if c.fits(**wanted)), None)

    def _needs_review(self, reached: Reached, calibrated: float | None) -> bool:
        """In the band of doubt, or a contradiction: Unsafe for no category, or a rating against its odds.

        Safe with a category is no contradiction: the policy may permit what the category is about.
        """
        reading, p = reached.reading, reached.p_unsafe
        unsafe = reading.rating is Rating.UNSAFE
        against_odds = p is not None and p != 0.5 and (p > 0.5) != unsafe
        causeless = unsafe and reading.category == NONE_APPLYING
        band = self.settings.needs_review(p if calibrated is None else calibrated)
        return band or causeless or against_odds


def _with_p(reached: Reached, p_unsafe: float | None) -> Reached:
    return reached if p_unsafe is None else replace(reached, p_unsafe=p_unsafe)
