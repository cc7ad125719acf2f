set -eu
umask 077
cd "$SCRATCH/$NAME"
password=$REDISCLI_AUTH
unset REDISCLI_AUTH
redis-server --dir "$PWD" --dbfilename dump --port 0 --unixsocket "$PWD/socket" --save '' >&2 &
trap 'kill $!' EXIT
until keys=$(redis-cli -s "$PWD/socket" dbsize) 2>/dev/null && [ "$keys" -ge 0 ] 2>/dev/null; do
  kill -0 $!
  sleep 1
done
copy="
if redis.replicate_commands then redis.replicate_commands() end
local cursor, count = '0', 0
repeat
  local found = redis.call('SCAN', cursor, 'COUNT', 100)
  cursor, count = found[1], count + #found[2]
  if #found[2] > 0 then
    redis.call('MIGRATE', ARGV[1], ARGV[2], '', ARGV[3], 600000, 'COPY', 'REPLACE',
      'AUTH', ARGV[4], 'KEYS', unpack(found[2]))
  end
until cursor == '0'
return count"
flushed=$(REDISCLI_AUTH=$password redis-cli -h "$HOST" -p "$PORT" flushall)
[ "$flushed" = OK ] || { echo "$flushed"; exit 1; }
sum=0
for number in $(redis-cli -s "$PWD/socket" info keyspace | sed -n 's/^db\([0-9]*\):.*/\1/p'); do
  count=$(printf '%s' "$password" |
    redis-cli -s "$PWD/socket" -n "$number" -x eval "$copy" 0 "$HOST" "$PORT" "$number")
  [ "$count" -ge 0 ] 2>/dev/null || { echo "$count"; exit 1; }
  sum=$((sum + count))
done
# Wait until the keys are in the append-only file on the disk: Redis 7.2 and later.
REDISCLI_AUTH=$password redis-cli -h "$HOST" -p "$PORT" waitaof 1 0 60000 >/dev/null
trap - EXIT
kill $!
wait
echo "$sum keys"
