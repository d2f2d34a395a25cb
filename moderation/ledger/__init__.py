"""Every SQL statement of Vetline. Postgres is the ledger; each file is a verb.

`engine` opens it, `migrate` shapes it, `policies` pins revisions and `registry` keeps them; then the life of an
assessment: `submit`, `claim`, `record` and `outcomes` (fail, try later, give back), `sweep`, `retry`, `reassess`; `queries`
and `impact` for people.
"""
