set -eu
umask 077
cd "$SCRATCH/$NAME"
set -- --no-defaults --datadir="$PWD/data" --mysqlx=OFF
mysqld "$@" --initialize-insecure
mysqld "$@" --skip-networking --socket="$PWD/socket" --pid-file="$PWD/pid" --secure-file-priv=NULL &
ask() { mysql --no-defaults --socket="$PWD/socket" --user=root --batch --skip-column-names "$@"; }
until ask -e 'SELECT 1' >/dev/null 2>&1; do
  kill -0 $!
  sleep 1
done
ask -e "CREATE DATABASE \`$MYSQL_DATABASE\`"
ask "$MYSQL_DATABASE" <dump
found=$(ask -e "SELECT COUNT(*) FROM information_schema.tables
  WHERE table_schema = '$MYSQL_DATABASE' AND table_type = 'BASE TABLE'")
kill $!
wait
expected=$(grep -c '^CREATE TABLE' dump || true)
[ "$found" = "$expected" ] || { echo "$found of $expected tables were restored."; exit 1; }
echo "mysqld starts with $found tables"
