set -eu
umask 077
mkdir -p "$SCRATCH/$NAME"
cd "$SCRATCH/$NAME"
