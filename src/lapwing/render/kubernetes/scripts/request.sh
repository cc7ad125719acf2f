set -eu
status=$(curl --silent --show-error --max-time "$TIMEOUT" --output /tmp/answer \
  --header "Host: $HOST" --write-out '%{http_code}' "$URL")
if [ "$status" != "$EXPECT" ]; then
  echo "GET $URL responded $status instead of $EXPECT:"
  head -c 2000 /tmp/answer
  exit 1
fi
if [ -n "$CONTAINS" ] && ! grep -qF -- "$CONTAINS" /tmp/answer; then
  echo "The response to GET $URL does not contain: $CONTAINS"
  head -c 2000 /tmp/answer
  exit 1
fi
