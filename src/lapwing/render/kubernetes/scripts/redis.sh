redis-cli -h "$HOST" -p "$PORT" --rdb dump >/dev/null
test "$(head -c 5 dump)" = REDIS
