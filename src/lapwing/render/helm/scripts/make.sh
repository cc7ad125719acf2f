set -eu
umask 077
account=/var/run/secrets/kubernetes.io/serviceaccount
printf 'Authorization: Bearer %s' "$(cat "$account/token")" > /tmp/header

# create NAME TYPE, with the fields of the Secret, as JSON, on stdin
create() {
  status=$({
    printf '{"apiVersion":"v1","kind":"Secret","metadata":{"name":"%s",%s},' "$1" "$LABELS"
    printf '"type":"%s","stringData":{' "$2"
    cat
    printf '}}'
  } | curl --silent --show-error --cacert "$account/ca.crt" --header @/tmp/header \
      --header 'Content-Type: application/json' --data-binary @- --output /dev/null \
      --retry 10 --retry-connrefused --max-time 30 --write-out '%{http_code}' \
      "$API/api/v1/namespaces/$NAMESPACE/secrets")
  case "$status" in
    201) echo "created $1" ;;
    409) echo "kept $1" ;;
    *) echo "creating $1 failed: the API server responded $status" >&2; return 1 ;;
  esac
}

# lines FILE: its text as one line, with JSON escapes
lines() { awk '{ printf "%s\\n", $0 }' "$1"; }

while read -r name wanted; do
  if test "$wanted" = certificate; then
    printf '"tls.crt":"%s","tls.key":"%s"' "$(lines /tmp/tls.crt)" "$(lines /tmp/tls.key)" |
      create "$name" kubernetes.io/tls
    continue
  fi
  fields=""
  for pair in $wanted; do
    length=${pair#*=}
    value=$(head -c 4096 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c "$length")
    test "${#value}" -eq "$length"
    fields="$fields,\"${pair%%=*}\":\"$value\""
  done
  printf '%s' "${fields#,}" | create "$name" Opaque
done < /etc/secret-maker/list
