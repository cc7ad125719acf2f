set -f
for path in $PATHS; do
  echo "GET $path"
  curl --fail --silent --show-error --insecure --output /dev/null --retry 12 \
    --retry-all-errors --retry-max-time 120 --max-time 20 \
    --header "Host: $HOST" "$EDGE$path"
done
