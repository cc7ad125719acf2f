set -eu
read_all() {
  # Names are not resolved until network policies know the address of a new pod, and while a restarted
  # kubelet probes the pods of DNS.
  attempts=30
  until
    nslookup -type=a "$EDGE" | awk '/^Name:/ {on = 1} on && /^Address/ {print $NF}' > /tmp/edges
    test -s /tmp/edges
  do
    test $attempts -gt 0 || { echo "$EDGE has no address of an edge pod."; exit 1; }
    attempts=$((attempts - 1))
    sleep 1
  done
  : > "$1"
  # DNS has the address of a pod that ended for up to 30 s.
  while read -r edge; do
    if grep -qxF "$edge" /tmp/ended; then continue; fi
    if curl --silent --show-error --fail --connect-timeout 3 --max-time 10 --get --output /tmp/read \
      --retry 5 --retry-delay 1 --retry-connrefused \
      --data-urlencode "filter=^cluster\.$CLUSTER\.upstream_rq_(time|xx|[0-9])" \
      "http://$edge:$PORT/stats/prometheus"
    then sed "s/^/$edge /" /tmp/read >> "$1"
    else echo "$edge" >> /tmp/ended; fi
  done < /tmp/edges
  test -s "$1" || { echo "No edge pod of $EDGE responds."; exit 1; }
}
: > /tmp/ended
read_all /tmp/before
sleep "$WINDOW"
sleep 2
read_all /tmp/after
awk -v least="$LEAST" -v most_errors="$MOST_ERRORS" -v most_p95="$MOST_P95" '
  function label(text, key,    at) {
    at = index(text, key "=\"")
    if (!at) return ""
    text = substr(text, at + length(key) + 2)
    return substr(text, 1, index(text, "\"") - 1)
  }
  { value = $NF; if (FNR == NR) { before[$1 " " $2] = value; next } }
  {
    grown = value - before[$1 " " $2]
    if (grown <= 0) next
    if ($2 ~ /^envoy_cluster_upstream_rq_xx\{/) {
      all += grown
      if (label($2, "envoy_response_code_class") == "5") failed += grown
    }
    if ($2 ~ /^envoy_cluster_upstream_rq_time_bucket\{/) bucket[label($2, "le")] += grown
  }
  END {
    if (all < least) { printf "%d requests in the window are too few for an analysis\n", all; exit 0 }
    p95 = -1
    total = bucket["+Inf"]
    if (total > 0)
      for (le in bucket)
        if (le != "+Inf" && bucket[le] >= 0.95 * total && (p95 < 0 || le + 0 < p95)) p95 = le + 0
    if (total > 0 && p95 < 0) p95 = 1e9
    printf "%d requests, %.1f %% errors, p95 at most %d ms\n", all, 100 * failed / all, p95
    if (most_errors != "" && failed / all > most_errors + 0) { print "Too many errors."; exit 1 }
    if (most_p95 != "" && p95 > most_p95 + 0) { print "Too slow."; exit 1 }
  }
' /tmp/before /tmp/after
