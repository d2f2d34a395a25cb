-- One login for each container, in the group role that it needs (moderation/ledger/roles.py). psql runs this as a
-- superuser after `vetline db upgrade`, as often as one likes; the passwords come from its environment.
\getenv worker POSTGRES_WORKER_PASSWORD
\getenv flower POSTGRES_FLOWER_PASSWORD
\getenv watcher POSTGRES_WATCHER_PASSWORD

SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY['worker', 'flower', 'watcher']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE worker LOGIN PASSWORD :'worker';
ALTER ROLE flower LOGIN PASSWORD :'flower';
ALTER ROLE watcher LOGIN PASSWORD :'watcher';
GRANT vetline_worker TO worker;
GRANT vetline_watcher TO flower, watcher;
