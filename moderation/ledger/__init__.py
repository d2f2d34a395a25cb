"""Every SQL statement of Vetline. Postgres is the ledger; a file a verb.

`engine` opens it, `migrate` shapes it, `policies` holds revisions; then the life of an assessment:
`submit`, `claim`, `ending` (record, fail, try later, give back), `sweep`, `retry`; `reading` for people.
"""
