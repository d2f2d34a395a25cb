"""The Celery app, importable as anyone would type it: `celery -A worker.app worker`, `celery -A worker.app flower`.

Reads DATABASE_URL and REDIS_URL, or finds the `vetline up` of this folder.
"""

from moderation.services.known import known_services
from worker.assembly import assemble

app = assemble(*known_services())
