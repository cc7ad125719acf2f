set -eu
umask 077
[ -e "$SCRATCH/.created" ] || date +%s >"$SCRATCH/.created"
mkdir -p "$SCRATCH/$NAME"
cd "$SCRATCH/$NAME"
dump() (
set -e
<dump>
)
# Connections of a new pod may be refused until network policies know its address.
attempts=3
while :; do
  set +e  # In a condition, the shell would ignore the errors of all but the last command.
  dump
  status=$?
  set -e
  test $status != 0 || break
  attempts=$((attempts - 1))
  test $attempts -gt 0
  sleep 5
done
