
others="FROM performance_schema.processlist
  WHERE db = '$MYSQL_DATABASE' AND id <> CONNECTION_ID()"
until=$(($(date +%s) + <patience>))
while left=$(query -e "SELECT COUNT(*) $others") && [ "$left" != 0 ]; do
  if [ "$(date +%s)" -ge "$until" ]; then
    echo "The database has $left connections that do not end:"
    query -e "SELECT user, host, command, time $others"
    exit 1
  fi
  sleep 1
done
[ "$left" = 0 ]
echo "No connection is left."
