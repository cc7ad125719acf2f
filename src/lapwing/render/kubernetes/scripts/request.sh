set -eu
request() {
  curl --silent --show-error --max-time "$TIMEOUT" --output /tmp/answer \
    --header "Host: $HOST" --write-out '%{http_code}' "$URL"
}
# Connections of a new pod may be refused until network policies know its address.
attempts=10
until status=$(request); do
  test $? = 7 && test $attempts -gt 0 || exit 1
  attempts=$((attempts - 1))
  sleep 1
done
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
