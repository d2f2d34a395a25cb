"""The ladder of asks for an answer that can be read: which rungs, how often each, in which order.

    strict     ask with the profile; the answer must be strict JSON
    salvage    also read answers that were cut in their rationale (applies to every ask)
    reseed     ask again with a new seed
    greedy     ask at temperature 0
    grammar    ask under a grammar that pins the trained template

Written as text, such as "strict salvage reseed*2 greedy grammar". Behind the last rung the item fails as
malformed_answer. Constrained decoding is the last rung and not the first: it has broken on vision models
before.
"""

import re
from dataclasses import dataclass
from typing import Self

from moderation.verdict import Rung
from worker.judges.sampling import PROFILES, Profile

DEFAULT_LADDER = "strict salvage reseed greedy grammar"
_WORD = re.compile(r"(?P<rung>strict|salvage|reseed|greedy|grammar)(?:\*(?P<times>[1-9]))?")


@dataclass(frozen=True, slots=True)
class LadderStep:
    """One ask of the ladder."""

    rung: Rung
    profile: Profile

    @property
    def under_grammar(self) -> bool:
        return self.rung is Rung.GRAMMAR


@dataclass(frozen=True, slots=True)
class Ladder:
    """rungs: in the order of asking, strict first. salvage: whether cut answers are read too."""

    rungs: tuple[Rung, ...]
    salvage: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, naming the word, for anything that is no ladder."""
        rungs: list[Rung] = []
        for word in text.replace(",", " ").split():
            match = _WORD.fullmatch(word)
            if match is None:
                raise ValueError(
                    f"{word!r} is no rung: write strict, salvage, reseed, greedy or grammar, or RUNG*N"
                )
            rungs += [Rung(match["rung"])] * int(match["times"] or 1)
        asked = tuple(rung for rung in rungs if rung is not Rung.SALVAGE)
        if not asked or asked[0] is not Rung.STRICT or asked.count(Rung.STRICT) > 1:
            raise ValueError("a ladder has strict once, as its first ask")
        return cls(asked, Rung.SALVAGE in rungs)

    def steps(self, profile: Profile) -> tuple[LadderStep, ...]:
        """What to ask, one after the other.

        A greedy profile gives the same answer each time, so steps that would repeat the first are left out.
        """
        greedy = profile if profile.greedy else PROFILES["greedy"].limited(profile.max_new_tokens)
        steps = []
        for rung in self.rungs:
            if profile.greedy and rung in (Rung.RESEED, Rung.GREEDY):
                continue
            steps.append(LadderStep(rung, profile if rung in (Rung.STRICT, Rung.RESEED) else greedy))
        return tuple(steps)
