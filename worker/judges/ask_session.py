"""One image under one policy: asks in the forms and rungs that are wanted, and keeps every ask."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from moderation.errors import MalformedAnswer, RequestRefused, VetlineError
from moderation.storable import storable
from moderation.verdict import Ask, Rung
from worker.judges import answer, grammar
from worker.judges.answer import Malformed, ParsedAnswer
from worker.judges.deadline import Deadline
from worker.judges.generation import Generation, check
from worker.judges.ladder import LadderStep
from worker.judges.probability import SAFE_ID, UNSAFE_ID, p_unsafe, rating_position
from worker.judges.prompt_tokens import PromptTokens
from worker.judges.prompts import END_TOKEN_ID
from worker.judges.sampling import PROFILES, new_seed
from worker.judges.sglang_client import EncodedImage, Request, SglangClient

log = structlog.get_logger()

Reader = Callable[[str, Collection[str]], ParsedAnswer]


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How much of the trained template is asked for.

    opening: what stands after the prompt already. pattern: a grammar for what follows it. cut: how to read an
    answer that was cut, if that can be.
    """

    opening: str
    pattern: str
    read: Reader
    cut: Reader | None = None
    stop: tuple[str, ...] = ()


def full_form(names: tuple[str, ...]) -> AnswerForm:
    """The whole template."""
    return AnswerForm("", grammar.full_pattern(names), answer.read, answer.salvage)


def brief_form(names: tuple[str, ...]) -> AnswerForm:
    """Rating and category: the model goes on from the opening quote and is stopped before the rationale."""
    return AnswerForm(grammar.OPENING, grammar.brief_pattern(names), answer.read_brief, stop=('"rationale"',))


def rest_form(reading: ParsedAnswer) -> AnswerForm:
    """The rationale of a rating and category that are known."""
    opening = grammar.up_to_rationale(reading.rating.value, reading.category)
    return AnswerForm(opening, grammar.rest_pattern(), answer.read, answer.salvage)


@dataclass(frozen=True, slots=True)
class Reached:
    """An answer that could be read, and how it was reached."""

    reading: ParsedAnswer
    rung: Rung
    raw: str  # the whole answer, its opening included
    prompt: str  # as sent
    profile: str
    sampling: dict[str, Any]
    finish_reason: str | None
    p_unsafe: float | None = None


@dataclass(slots=True)
class AskSession:
    """Asks and remembers. Raises what the client raises, and MalformedAnswer behind the last step."""

    client: SglangClient
    image: EncodedImage
    prompt: str
    names: tuple[str, ...]
    deadline: Deadline
    view: str = "whole"
    chatml: bool = True
    salvage: bool = True
    wants_p: bool = True  # P(unsafe) from the answer's own rating token
    # The server hands out the rating's logits unasked, so that no logprobs need be asked for.
    notes_rating: bool = False
    scaled_logprobs: bool = True
    tokens: PromptTokens | None = None  # None: prompts go as text
    asks: list[Ask] = field(default_factory=list)

    def climb(self, form: AnswerForm, steps: Sequence[LadderStep]) -> Reached:
        """Ask step after step until an answer can be read."""
        for step in steps:
            reached = self._ask(form, step)
            if reached is not None:
                return reached
        last = self.asks[-1].problem if self.asks else "nothing was asked"
        raise MalformedAnswer(f"{len(self.asks)} asks and no answer that could be read; the last: {last}")

    def question(self) -> float | None:
        """P(unsafe) from a one-token question at temperature 0."""
        profile = PROFILES["question"]
        generation = self._generate(Rung.RATING, grammar.OPENING, profile.parameters(), logprobs=True)
        logprobs = generation.rating_logprobs(0)
        return p_unsafe(logprobs) if logprobs is not None else None

    def _ask(self, form: AnswerForm, step: LadderStep) -> Reached | None:
        logprobs = self.wants_p and not self.notes_rating
        sampling = step.profile.parameters(
            seed=new_seed(),
            stop=list(form.stop) or None,
            stop_token_ids=[END_TOKEN_ID] if self.chatml else None,
            regex=form.pattern if step.under_grammar else None,
        )
        try:
            generation = self._generate(step.rung, form.opening, sampling, logprobs=logprobs)
        except RequestRefused as refusal:
            if not step.under_grammar:
                raise
            log.warning(
                "grammar_refused", error=str(refusal)
            )  # the last rung is no worse off than the others
            return None
        rung, reading = self._read(form, step, generation)
        if reading is None:
            return None
        return Reached(
            reading=reading,
            rung=rung,
            raw=storable(form.opening + generation.text),
            prompt=self.prompt + form.opening,
            profile=step.profile.name,
            sampling=sampling,
            finish_reason=generation.finish_reason,
            p_unsafe=self._p_unsafe(generation, reading, step.profile.temperature),
        )

    def _generate(self, rung: Rung, opening: str, sampling: dict[str, Any], *, logprobs: bool) -> Generation:
        """Ask once and note it, whatever comes of it."""
        wanted = (SAFE_ID, UNSAFE_ID) if logprobs else ()
        text = self.prompt + opening
        ids = self.tokens.of(text, deadline=self.deadline) if self.tokens is not None else None
        request = Request(text, sampling, self.image, wanted, ids)
        try:
            generation = self.client.generate(request, deadline=self.deadline)
        except VetlineError as error:
            self._note(Ask(rung=rung, view=self.view, problem=f"{error.code}: {error}", sampling=sampling))
            raise
        self._note(
            Ask(
                rung=rung,
                view=self.view,
                raw=storable(generation.text),
                finish_reason=generation.finish_reason,
                sampling=sampling,
                prompt_tokens=generation.prompt_tokens,
                completion_tokens=generation.completion_tokens,
                cached_tokens=generation.cached_tokens,
                elapsed_ms=generation.elapsed_ms,
            )
        )
        try:
            check(generation)
        except VetlineError as error:
            self._add_problem(f"{error.code}: {error}")
            raise
        return generation

    def _read(
        self, form: AnswerForm, step: LadderStep, generation: Generation
    ) -> tuple[Rung, ParsedAnswer | None]:
        text = form.opening + generation.text
        try:
            return step.rung, form.read(text, self.names)
        except Malformed as problem:
            self._add_problem(str(problem))
        if not (self.salvage and form.cut is not None and generation.was_cut):
            return step.rung, None
        try:
            return Rung.SALVAGE, form.cut(text, self.names)
        except Malformed as problem:
            self._add_problem(str(problem))
        return step.rung, None

    def _p_unsafe(self, generation: Generation, reading: ParsedAnswer, temperature: float) -> float | None:
        position = rating_position(generation.output_ids, reading.rating)
        if position is None or not self.wants_p:
            return None
        if (noted := generation.noted_rating(position)) is not None:
            return p_unsafe(noted)
        if (logprobs := generation.rating_logprobs(position)) is None:
            return None
        divided_by = temperature if self.scaled_logprobs and temperature > 0 else 1.0
        return p_unsafe(logprobs, temperature=divided_by)

    def _note(self, ask: Ask) -> None:
        self.asks.append(ask)

    def _add_problem(self, problem: str) -> None:
        """Write why the last ask's answer was not taken."""
        last = self.asks[-1]
        whole = storable(f"{last.problem}; {problem}" if last.problem else problem)
        self.asks[-1] = last.model_copy(update={"problem": whole})
