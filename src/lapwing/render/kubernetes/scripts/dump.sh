set -eu
umask 077
[ -e "$SCRATCH/.created" ] || date +%s >"$SCRATCH/.created"
mkdir -p "$SCRATCH/$NAME"
cd "$SCRATCH/$NAME"
