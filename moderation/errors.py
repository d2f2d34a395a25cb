"""Everything that can go wrong, in one tree. The class says what happens next; the code is stored and graphed.

    VetlineError
    ├── Misuse            the caller's mistake; nothing was accepted
    │   ├── UnknownPolicy (PolicyNotLive), PolicyError, InvalidSubmission, BadSource, BadSetting
    │   ├── InvalidCursor, InvalidConsumer, InvalidWebhook
    ├── Transient         tried again after a growing, jittered delay, up to a limit
    │   ├── HostUnavailable, RateLimited, DecodeTimeout, JudgeTimeout, RuntimeFault, Defect
    ├── Permanent         failed at once
    │   ├── NotFound, Forbidden, BlockedAddress, UntrustedHost, HostRefused, InvalidUri, TooLarge, TooSlow
    │   ├── UnsupportedType, Undecodable (DamagedButShown), TooManyPixels, TooExpensive
    │   └── MalformedAnswer, RequestRefused, PolicyUnsupported
    ├── Unavailable       the claim is given back uncharged; no work is taken until it is well
    │   ├── RuntimeUnavailable (RuntimeCrashed), DecoderUnavailable, LedgerUnavailable, ServiceMissing
    │   ├── BrokerUnavailable (BrokerRefused), ConsumerTaken, DatabaseRestored, QueueFull, SourceUnavailable
    ├── GateRefused       a policy or model may not go live; exit code 1
    └── Poison            it took a worker or the runtime down; set aside

No verdict is not Safe: every one of these ends as a named state that somebody can list, explain and retry.
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from moderation.verdict import Ask


class VetlineError(Exception):
    """Base of the tree. `str(error)` is one line for a person and holds no secret.

    asks: what was asked of a judge before the error, so that the attempt keeps it.
    """

    code: ClassVar[str] = "unknown_error"
    asks: "tuple[Ask, ...]" = ()


class Misuse(VetlineError):
    """The caller's mistake: said in one line, exit code 2, nothing accepted."""

    code = "misuse"


class UnknownPolicy(Misuse):
    """No such policy or revision, or the policy is retired."""

    code = "unknown_policy"


class PolicyNotLive(UnknownPolicy):
    """The revision's policy has a gate, and the revision never went live: it takes no images but in an evaluation."""

    code = "policy_not_live"


class PolicyError(Misuse):
    """A policy's text or file breaks a rule; the message names the line and the field."""

    code = "policy_error"


class InvalidSubmission(Misuse):
    """A URI, key, batch or metadata that cannot be accepted."""

    code = "invalid_submission"


class BadSource(Misuse):
    """A source to enqueue from that does not exist or cannot be read."""

    code = "bad_source"


class BadSetting(Misuse):
    """A setting or flag whose value cannot be used."""

    code = "bad_setting"


class InvalidCursor(Misuse):
    """A text that is no cursor of the feed, or one of another database."""

    code = "invalid_cursor"


class InvalidConsumer(Misuse):
    """A consumer's name that cannot be used, is not known, or stands for another filter."""

    code = "invalid_consumer"


class InvalidWebhook(Misuse):
    """An endpoint that cannot be added, or none of that name."""

    code = "invalid_webhook"


class Transient(VetlineError):
    """Tried again later, up to a limit. `retry_after_s` is what the other side asked for, if it did."""

    code = "transient"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HostUnavailable(Transient):
    """The image's host answered 5xx, reset the connection, or its name did not resolve for now."""

    code = "host_unavailable"


class RateLimited(Transient):
    """The image's host answered 429."""

    code = "rate_limited"


class DecodeTimeout(Transient):
    """Time ran out though the decoder had hardly computed: this machine is overloaded, the image may be fine."""

    code = "decode_timeout"


class JudgeTimeout(Transient):
    """The judge gave no answer before the deadline, though it is up."""

    code = "judge_timeout"


class RuntimeFault(Transient):
    """The runtime answered, but with a fault of its own: HTTP 500, an abort, NaN logprobs, a run of '!'."""

    code = "runtime_fault"


class Defect(Transient):
    """A defect of ours, logged with its traceback: tried again a few times, then failed."""

    code = "internal_error"


class Permanent(VetlineError):
    """Trying again changes nothing: failed at once."""

    code = "permanent"


class NotFound(Permanent):
    """The URI names nothing (404, 410, no such file or key)."""

    code = "not_found"


class Forbidden(Permanent):
    """We may not read it (401, 403, outside the allowed roots or buckets)."""

    code = "forbidden"


class BlockedAddress(Permanent):
    """The URI's host resolves to an address that images must not be fetched from."""

    code = "blocked_address"


class UntrustedHost(Permanent):
    """The host's certificate does not prove that it is the host of the URI."""

    code = "untrusted_host"


class HostRefused(Permanent):
    """The host answered, but never with an image: another 4xx, an encoded body, one redirect after another."""

    code = "host_refused"


class InvalidUri(Permanent):
    """A scheme or form that cannot be fetched."""

    code = "invalid_uri"


class TooLarge(Permanent):
    """More bytes than the limit, announced or counted."""

    code = "too_large"


class TooSlow(Permanent):
    """The fetch outlasted its wall-clock budget or fell below the minimum rate."""

    code = "too_slow"


class UnsupportedType(Permanent):
    """Not an image format that is judged (by its bytes, whatever it is called)."""

    code = "unsupported_type"


class Undecodable(Permanent):
    """An image format that is judged, but damaged, or it needs more memory than a decoder may take."""

    code = "undecodable"


class DamagedButShown(Undecodable):
    """Damaged, and a browser may show people a part of it all the same."""

    code = "damaged_but_shown"


class TooManyPixels(Permanent):
    """More pixels or frames than the limit."""

    code = "too_many_pixels"


class TooExpensive(Permanent):
    """A sound image, as far as can be told, whose decoding takes more CPU than it may."""

    code = "too_expensive"


class MalformedAnswer(Permanent):
    """Every rung of the judge ladder was asked and none gave a parsable answer."""

    code = "malformed_answer"


class RequestRefused(Permanent):
    """The runtime refused the request itself: context too long, bad parameters."""

    code = "request_refused"


class PolicyUnsupported(Permanent):
    """This judge cannot follow this policy."""

    code = "policy_unsupported"


class GateRefused(VetlineError):
    """A revision or a model does not pass its policy's gate, or somebody may not go past it. Exit code 1."""

    code = "gate_refused"


class Unavailable(VetlineError):
    """Something that every item needs is down: give the claim back, charge nothing, wait until it is well."""

    code = "unavailable"


class RuntimeUnavailable(Unavailable):
    """The judge's runtime refused the call, dropped the connection or is restarting."""

    code = "runtime_unavailable"


class RuntimeCrashed(RuntimeUnavailable):
    """The runtime died or hung with it in hand: noted as a crash of the item's, as a worker's death is."""

    code = "runtime_crashed"


class DecoderUnavailable(Unavailable):
    """No decoder process could be started, or none came free in time: the machine lacks memory or processes."""

    code = "decoder_unavailable"


class LedgerUnavailable(Unavailable):
    """Postgres refused the call or dropped the connection."""

    code = "ledger_unavailable"


class BrokerUnavailable(Unavailable):
    """Redis refused the call or dropped the connection."""

    code = "broker_unavailable"


class BrokerRefused(BrokerUnavailable):
    """Redis answers, and its ACL keeps this user from the command."""

    code = "broker_refused"


class SourceUnavailable(Unavailable):
    """Storage that is listed for images to enqueue does not answer."""

    code = "source_unavailable"


class ServiceMissing(Unavailable):
    """No Postgres or Redis is configured and none can be started here; the message says how to get one."""

    code = "service_missing"


class ConsumerTaken(Unavailable):
    """Another process reads under this consumer's name now; what was not acknowledged comes to it again."""

    code = "consumer_taken"


class DatabaseRestored(Unavailable):
    """The database came from another cluster, and its transaction ids with it: `vetline db upgrade` begins an epoch."""

    code = "database_restored"


class QueueFull(Unavailable):
    """As many rows wait as may: nothing was accepted; submit again later."""

    code = "queue_full"


class Poison(VetlineError):
    """It took a worker or the runtime down again while it ran alone under observation: set aside."""

    code = "poison"


def error_named(code: str, message: str) -> VetlineError:
    """The error that a stored or transmitted code stands for; an unknown code is a plain VetlineError."""
    return _by_code().get(code, VetlineError)(message)


def _by_code() -> dict[str, type[VetlineError]]:
    classes: dict[str, type[VetlineError]] = {}
    to_visit = [VetlineError]
    while to_visit:
        kind = to_visit.pop()
        classes[kind.code] = kind
        to_visit += kind.__subclasses__()
    return classes
