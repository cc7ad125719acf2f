set -eu
umask 077
cd "$SCRATCH"
created=$(cat .created)
id=$(date -u -d "@$created" +%Y%m%dT%H%M%SZ)
limit=$(date -u -d "@$((created - 86400))" +%Y%m%d%H%M%S)
parts=
while read -r name kind image; do
  [ -n "$name" ] || continue
  tar -czf "$name.tar.gz" -C "$name" dump
  rm -r "${name:?}"
  digest=$(sha256sum "$name.tar.gz")
  bytes=$(wc -c <"$name.tar.gz")
  rclone moveto "$name.tar.gz" "$TARGET/$id/$name.tar.gz"
  parts="$parts${parts:+,}{\"name\":\"$name\",\"kind\":\"$kind\",\"bytes\":$((bytes)),\"sha256\":\"${digest%% *}\",\"image\":\"$image\"}"
done <<EOF
$PARTS
EOF
printf '{"format":1,"id":"%s","stack":"%s","environment":"%s","created":%s,"commit":null,"scheduled":%s,"lapwing":"","parts":[%s]}\n' \
  "$id" "$STACK" "$ENVIRONMENT" "$created" "$SCHEDULED" "$parts" >manifest.json
rclone copyto manifest.json "$TARGET/$id/manifest.json"
# The backup is complete: what cannot be removed is a warning.
attempt() { rclone "$@" 2>.errors || { tail -n 1 .errors >.failed; return 1; }; }
found=$(attempt lsf --dirs-only "$TARGET") || true
kept=0
for old in $(echo "$found" | sed -n 's,^\([0-9]\{8\}T[0-9]\{6\}Z\)/$,\1,p' | sort -r); do
  files=$(attempt lsf "$TARGET/$old") || continue
  if echo "$files" | grep -qxF manifest.json; then
    attempt cat "$TARGET/$old/manifest.json" | grep "\"scheduled\": *$SCHEDULED" >/dev/null || continue
    kept=$((kept + 1))
    [ "$kept" -gt "$KEEP" ] || continue
    attempt deletefile "$TARGET/$old/manifest.json" || continue
  else
    [ "$(echo "$old" | tr -d TZ)" -lt "$limit" ] || continue
  fi
  attempt purge "$TARGET/$old" || true
done
[ ! -e .failed ] || echo "Old backups could not be removed: $(cat .failed)" >&2
cat manifest.json
