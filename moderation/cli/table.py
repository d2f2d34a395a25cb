"""Every command of `vetline`: its name, where it lives, and what it does in one line.

`vetline --help` and completion are made from this table alone; a command's module is loaded when it is called. To add
a command, write it, then name it here. A test holds each line to the first line of the command's own help.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Listed(NamedTuple):
    """One command. app: `module:attribute` of the Typer app that has it, under this name."""

    name: str
    app: str
    help: str


GROUPS: Mapping[str, tuple[Listed, ...]] = {
    "Submit images": (
        Listed("enqueue", "producer.cli:commands", "Submit images from files, folders, URLs, lists or S3."),
        Listed(
            "serve",
            "producer.serve.cli:commands",
            "Take submissions over HTTP, from services in any language.",
        ),
        Listed("token", "producer.serve.cli:commands", "Make a token for a client of `vetline serve`."),
    ),
    "Judge them": (
        Listed("worker", "worker.cli:commands", "Run a worker: claim, fetch, decode, judge and record."),
        Listed("worker-status", "worker.cli:commands", "Ask the workers here whether they are ready."),
        Listed("up", "worker.cli:commands", "Run Postgres, Redis, a worker and Flower here."),
        Listed("demo", "worker.cli:commands", "Judge sample images here with the small CPU judge."),
    ),
    "Look at the work": (
        Listed("status", "moderation.cli.status:commands", "Show counts by state, pace, workers and pauses."),
        Listed("watch", "moderation.cli.watch:commands", "Watch states, pace, failures and workers live."),
        Listed("failed", "moderation.cli.failed:commands", "Show what failed, by error code and host."),
        Listed("explain", "moderation.cli.explain:commands", "Tell the whole story of one assessment."),
        Listed(
            "flower", "worker.flower.cli:commands", "Serve Flower, read-only: tasks as images and policies."
        ),
    ),
    "Mend and steer": (
        Listed("retry", "moderation.cli.retry_cancel:commands", "Queue failed assessments again."),
        Listed(
            "cancel", "moderation.cli.retry_cancel:commands", "Cancel assessments that no worker has claimed."
        ),
        Listed(
            "requeue-stuck",
            "moderation.cli.retry_cancel:commands",
            "Free what dead workers hold; ring again what was lost.",
        ),
        Listed(
            "rejected", "moderation.cli.rejected:commands", "List, mend and drop messages that were rejected."
        ),
        Listed("pause", "moderation.cli.pause:commands", "Pause a batch, a policy, a tenant or everything."),
        Listed("resume", "moderation.cli.pause:commands", "End a pause."),
        Listed("cap", "moderation.cli.pause:commands", "Limit how much of a batch or tenant runs at once."),
    ),
    "Policies": (
        Listed("policy", "moderation.cli.policy:commands", "Add, show, compare and retire policies."),
        Listed(
            "reassess",
            "moderation.cli.reassess:commands",
            "Judge again under another revision of a policy.",
        ),
        Listed(
            "calibrate",
            "worker.judges.commands:commands",
            "Fit a calibration of P(unsafe) to people's labels.",
        ),
        Listed(
            "evaluate", "consumer.cli.evaluate:commands", "Measure verdicts against labels, with intervals."
        ),
        Listed("evaluations", "consumer.cli.evaluations:commands", "List, show and compare evaluation runs."),
        Listed(
            "shadow", "consumer.cli.shadow:commands", "Judge a share under a candidate too, without effect."
        ),
        Listed("golden", "consumer.cli.golden:commands", "Judge known images among live ones."),
    ),
    "Consume verdicts": (
        Listed(
            "verdicts",
            "consumer.cli.verdicts:commands",
            "List verdicts, or write them as JSON lines, CSV or Parquet.",
        ),
        Listed("feed", "consumer.cli.feed:commands", "Print verdicts in order, a JSON object a line."),
        Listed(
            "consumer",
            "consumer.cli.feed:commands",
            "List, move and remove named consumers of the feed.",
        ),
        Listed("webhook", "worker.webhooks.commands:commands", "Send verdicts to URLs, signed and in order."),
        Listed(
            "export", "consumer.cli.export_dsa:commands", "Export verdicts in forms that others prescribe."
        ),
    ),
    "Operate": (
        Listed("db", "moderation.cli.db:commands", "Create, migrate and show the database's tables."),
        Listed("doctor", "worker.cli:commands", "Check this machine, its services and its settings."),
        Listed("audit", "moderation.cli.audit:commands", "Reconcile the ledger with itself."),
        Listed("metrics", "moderation.cli.metrics:commands", "Serve the ledger's metrics for Prometheus."),
        Listed(
            "retention",
            "moderation.cli.retention:commands",
            "Clear raw outputs and URIs of what ended long ago.",
        ),
        Listed("hold", "moderation.cli.retention:commands", "Keep what retention would clear: legal holds."),
        Listed(
            "completion",
            "moderation.cli.completion:commands",
            "Print a completion script for bash, zsh or fish.",
        ),
    ),
}

COMMANDS: Mapping[str, Listed] = {listed.name: listed for group in GROUPS.values() for listed in group}
