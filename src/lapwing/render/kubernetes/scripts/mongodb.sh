password=$(printf '%s' "$MONGO_INITDB_ROOT_PASSWORD" | sed 's/[\\"]/\\&/g')
mongodump --config=/dev/fd/3 --host="$HOST" --port="$PORT" \
  --username="$MONGO_INITDB_ROOT_USERNAME" --authenticationDatabase=admin \
  --quiet --archive=dump 3<<EOF
password: "$password"
EOF
