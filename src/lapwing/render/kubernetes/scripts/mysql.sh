password=$(printf '%s' "$MYSQL_ROOT_PASSWORD" | sed 's/[\\"]/\\&/g')
mysqldump --defaults-extra-file=/dev/fd/3 --host="$HOST" --port="$PORT" \
  --single-transaction --routines --events --no-tablespaces --set-gtid-purged=OFF "$MYSQL_DATABASE" >dump 3<<EOF
[client]
user=root
password="$password"
EOF
