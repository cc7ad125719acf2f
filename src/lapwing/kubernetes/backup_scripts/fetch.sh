set -eu
umask 077
mkdir -p "$SCRATCH/$NAME"
cd "$SCRATCH/$NAME"
rclone copyto "$TARGET/$BACKUP/$NAME.tar.gz" archive
digest=$(sha256sum archive)
if [ "${digest%% *}" != "$SHA256" ]; then
  echo "$BACKUP/$NAME.tar.gz is damaged: its SHA-256 is not that of the manifest."
  exit 1
fi
tar -xzf archive
rm archive
