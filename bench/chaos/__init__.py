"""A run that kills what it can and counts what is left: `python -m bench.chaos --help`.

plan      how many of which fault, seeded
history   one JSON line for each event: what was accepted, who was killed, what was stopped
workers   the workers, started again whenever they end
monkey    the faults
checker   the verdict over the run, from the history file and the database alone
plain     the same kills over what plain Celery clients send
peer      the same kills over plain Celery with its recommended settings
"""
