set -eu
umask 077
escaped=$(printf '%s' "$MYSQL_ROOT_PASSWORD" | sed 's/[\\"]/\\&/g')
printf '[client]\nhost="%s"\nuser=root\npassword="%s"\n' "$HOST" "$escaped" > "$SCRATCH/client.cnf"
query() { mysql --defaults-extra-file="$SCRATCH/client.cnf" --batch --skip-column-names "$@"; }
count_tables() {
  query -e "SELECT COUNT(*) FROM information_schema.tables
    WHERE table_schema = '$MYSQL_DATABASE' AND table_type = 'BASE TABLE'"
}
count_dumped() { gzip -dc "$1" | grep -c '^CREATE TABLE' || true; }
is_complete() { gzip -t "$1" && gzip -dc "$1" | tail -n 1 | grep -q '^-- Dump completed'; }
