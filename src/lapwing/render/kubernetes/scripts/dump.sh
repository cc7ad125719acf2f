set -eu
umask 077
[ -e "$SCRATCH/.created" ] || date +%s >"$SCRATCH/.created"
mkdir -p "$SCRATCH/$NAME"
cd "$SCRATCH/$NAME"
dump() {
<dump>
}
# Connections of a new pod may be refused until network policies know its address.
attempts=3
until dump; do
  attempts=$((attempts - 1))
  test $attempts -gt 0
  sleep 5
done
