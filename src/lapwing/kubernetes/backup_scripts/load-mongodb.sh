set -eu
cd "$SCRATCH/$NAME"
password=$(printf '%s' "$MONGO_INITDB_ROOT_PASSWORD" | sed 's/[\\"]/\\&/g')
mongorestore --config=/dev/fd/3 --host="$HOST" --port="$PORT" \
  --username="$MONGO_INITDB_ROOT_USERNAME" --authenticationDatabase=admin \
  --drop --nsExclude='admin.*' --archive=dump 2>restored 3<<EOF || { tail -n 3 restored; exit 1; }
password: "$password"
EOF
tail -n 1 restored | cut -f 2
