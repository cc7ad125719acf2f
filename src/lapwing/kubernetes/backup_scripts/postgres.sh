set -eu
umask 077
cd "$SCRATCH/$NAME"
export PGHOST="$PWD" PGUSER="$POSTGRES_USER"
initdb --pgdata=data --username="$POSTGRES_USER" --auth=trust >&2
pg_ctl --pgdata=data --options="-k '$PWD' -c listen_addresses=''" --wait start >&2
createdb "$POSTGRES_DB"
pg_restore --exit-on-error --no-owner --no-privileges --dbname="$POSTGRES_DB" dump
found=$(psql -AtXc "SELECT COUNT(*) FROM pg_tables
  WHERE schemaname NOT IN ('pg_catalog', 'information_schema')" "$POSTGRES_DB")
pg_ctl --pgdata=data --mode=fast stop >&2
echo "postgres starts with $found tables"
