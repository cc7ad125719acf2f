set -eu
umask 077
cd "$SCRATCH/$NAME"
redis-server --dir "$PWD" --dbfilename dump --port 0 --unixsocket "$PWD/socket" --save '' >&2 &
until keys=$(redis-cli -s "$PWD/socket" dbsize) 2>/dev/null && [ "$keys" -ge 0 ] 2>/dev/null; do
  kill -0 $!
  sleep 1
done
kill $!
wait
echo "redis-server starts with $keys keys"
