"""Every SQL statement of Vetline. Postgres is the ledger; a file a verb.

`engine` opens it, `migrate` shapes it, `policies` pins revisions and `registry` keeps them; then the life of an
assessment: `submit`, `claim`, `ending` (record, fail, try later, give back), `sweep`, `retry`, `reassess`; `reading`
and `impact` for people.
"""
