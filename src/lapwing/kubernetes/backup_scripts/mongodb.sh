set -eu
umask 077
cd "$SCRATCH/$NAME"
mkdir data
mongod --dbpath "$PWD/data" --bind_ip 127.0.0.1 >&2 &
until mongosh --quiet --eval 'db.adminCommand({ping: 1}).ok' >/dev/null 2>&1; do
  kill -0 $!
  sleep 1
done
mongorestore --nsExclude='admin.*' --archive=dump 2>restored || { tail -n 3 restored; exit 1; }
kill $!
wait
echo "mongod starts: $(tail -n 1 restored | cut -f 2)"
