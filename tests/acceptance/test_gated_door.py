"""The HTTP door takes nothing under a revision that its policy's gate has not let through."""

from moderation.gate import Gate, parse_rule
from moderation.ledger import gates, registry
from moderation.policy import PolicyRevision
from tests.acceptance.conftest import System
from tests.support.serve import RunningApi


def test_the_door_refuses_a_draft_and_takes_what_is_live(system: System) -> None:
    gate = Gate.model_construct(policy="newsroom", data="0" * 64, weights=None, prompt_mode=None,
                                rules=(parse_rule("recall.lower95 >= 0.8"),))  # fmt: skip
    gates.set_gate(system.engine, gate, by="ann", reason="first")
    current = registry.find(system.engine, "newsroom").content
    fields = current.model_dump(exclude={"revision"}) | {"title": "Second"}
    draft = registry.add(system.engine, PolicyRevision(**fields), by="ann", reason="tried").policy.ref
    with RunningApi(system.folder, system.env) as door:
        refused = door.submit({"uri": "https://images.test/1.jpg", "policy": draft})
        assert (refused.status_code, refused.json()["code"]) == (422, "policy_not_live")
        taken = door.submit({"uri": "https://images.test/1.jpg", "policy": "newsroom"})
        assert taken.status_code == 202
        assert "newsroom@1" in taken.text
    assert sum(system.counts().values()) == 1
