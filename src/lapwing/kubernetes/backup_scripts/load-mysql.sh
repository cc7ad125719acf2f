set -eu
umask 077
cd "$SCRATCH/$NAME"
password=$(printf '%s' "$MYSQL_ROOT_PASSWORD" | sed 's/[\\"]/\\&/g')
ask() {
  mysql --defaults-extra-file=/dev/fd/3 --host="$HOST" --port="$PORT" --batch --raw \
    --skip-column-names "$@" "$MYSQL_DATABASE" 3<<EOF
[client]
user=root
password="$password"
EOF
}
# The database itself stays: it has a character set and the privileges of its user.
ask -e "SELECT CONCAT('DROP ', kind, ' IF EXISTS \`', REPLACE(name, '\`', '\`\`'), '\`;') FROM (
  SELECT IF(table_type = 'VIEW', 'VIEW', 'TABLE') AS kind, table_name AS name
    FROM information_schema.tables WHERE table_schema = DATABASE()
  UNION ALL SELECT routine_type, routine_name
    FROM information_schema.routines WHERE routine_schema = DATABASE()
  UNION ALL SELECT 'EVENT', event_name
    FROM information_schema.events WHERE event_schema = DATABASE()) AS objects" >objects
{ echo 'SET FOREIGN_KEY_CHECKS = 0;'; cat objects; } | ask
ask <dump
found=$(ask -e "SELECT COUNT(*) FROM information_schema.tables
  WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'")
expected=$(grep -c '^CREATE TABLE' dump || true)
[ "$found" = "$expected" ] || { echo "$found of $expected tables were restored."; exit 1; }
echo "$found tables"
