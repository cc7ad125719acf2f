set -eu
cd "$SCRATCH/$NAME"
export PGHOST="$HOST" PGPORT="$PORT" PGUSER="$POSTGRES_USER" PGPASSWORD="$POSTGRES_PASSWORD"
new=${POSTGRES_DB}_restored before=${POSTGRES_DB}_before_restore
dropdb --if-exists --force --maintenance-db=postgres "$new"
createdb --maintenance-db=postgres "$new"
pg_restore --exit-on-error --no-owner --no-privileges --dbname="$new" dump
dropdb --if-exists --force --maintenance-db=postgres "$before"
psql -Xq -v ON_ERROR_STOP=1 -v db="$POSTGRES_DB" -v new="$new" -v before="$before" postgres <<'EOF'
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :'db' \g /dev/null
BEGIN;
ALTER DATABASE :"db" RENAME TO :"before";
ALTER DATABASE :"new" RENAME TO :"db";
COMMIT;
EOF
dropdb --force --maintenance-db=postgres "$before"
found=$(psql -AtXc "SELECT COUNT(*) FROM pg_tables
  WHERE schemaname NOT IN ('pg_catalog', 'information_schema')" "$POSTGRES_DB")
echo "$found tables"
