set -eu
request() {
  curl --silent --show-error --connect-timeout 3 --max-time "$TIMEOUT" --output /tmp/answer \
    --header "Host: $HOST" --write-out '%{http_code} %{size_request}' "$URL"
}
# Nothing is sent if the name is not resolved, or if the connection is refused or dropped: until
# network policies know the address of a new pod, and while a restarted kubelet probes its pods.
attempts=30
until answer=$(request); do
  test "${answer#* }" = 0 && test $attempts -gt 0 || exit 1
  attempts=$((attempts - 1))
  sleep 1
done
status=${answer% *}
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
