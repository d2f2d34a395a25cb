"""Sampling profiles by name. What a profile holds is what goes over the wire; tests prove it there."""

import secrets
from dataclasses import dataclass, replace
from typing import Any, Literal

ProfileName = Literal["card", "greedy", "fast"]


@dataclass(frozen=True, slots=True)
class Profile:
    """How to draw tokens. temperature 0 is greedy, and top_p and top_k do not matter then.

    max_new_tokens: rationales of the model card's examples have at most about 100 tokens; 500 is the card's
    limit.
    """

    name: str
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def parameters(self, *, seed: int | None = None, **more: Any) -> dict[str, Any]:
        """SGLang's sampling_params. `more` adds grammar and stops, without those that are None."""
        parameters: dict[str, Any] = {"temperature": self.temperature, "max_new_tokens": self.max_new_tokens}
        if not self.greedy:
            parameters |= {"top_p": self.top_p, "top_k": self.top_k}
            # Honoured by servers in deterministic mode, ignored by others, recorded for both.
            parameters |= {"sampling_seed": seed} if seed is not None else {}
        return parameters | {name: value for name, value in more.items() if value is not None}

    def limited(self, max_new_tokens: int | None) -> "Profile":
        return self if max_new_tokens is None else replace(self, max_new_tokens=max_new_tokens)


PROFILES: dict[str, Profile] = {
    "card": Profile("card", temperature=0.2, top_p=0.95, top_k=50, max_new_tokens=500),
    "greedy": Profile("greedy", temperature=0.0, top_p=1.0, top_k=-1, max_new_tokens=500),
    # Rating and category only, asked after the template's opening: 12 tokens and the category's name.
    "fast": Profile("fast", temperature=0.0, top_p=1.0, top_k=-1, max_new_tokens=64),
    "question": Profile("question", temperature=0.0, top_p=1.0, top_k=-1, max_new_tokens=1),
}


def new_seed() -> int:
    """A seed for one ask, 31 bits: SGLang's own default would give every re-ask the same draw."""
    return secrets.randbits(31)
