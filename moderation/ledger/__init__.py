"""Every SQL statement of Vetline. Postgres is the ledger. A file holds a verb.

`engine` opens the connection, `migrate` shapes the tables, `policies` pins revisions and `registry` keeps them. The
life of an assessment is in `submit`, `relay`, `claim`, `record`, `outcomes` (fail, try later, give back), `sweep`,
`retry` and `reassess`. Consumers read through `feed`, `consumers`, `deliveries` and `export`. People read through
`queries`, `explain`, `failures` and `impact`.
"""
