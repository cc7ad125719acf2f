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
found=$(rclone lsf --dirs-only "$TARGET")
kept=0
for old in $(echo "$found" | sed -n 's,^\([0-9]\{8\}T[0-9]\{6\}Z\)/$,\1,p' | sort -r); do
  files=$(rclone lsf "$TARGET/$old")
  case $files in
  *manifest.json*)
    rclone cat "$TARGET/$old/manifest.json" | grep -q "\"scheduled\": *$SCHEDULED" || continue
    kept=$((kept + 1))
    [ "$kept" -gt "$KEEP" ] || continue
    rclone deletefile "$TARGET/$old/manifest.json"
    ;;
  *) [ "$(echo "$old" | tr -d TZ)" -lt "$limit" ] || continue ;;
  esac
  rclone purge "$TARGET/$old"
done
cat manifest.json
