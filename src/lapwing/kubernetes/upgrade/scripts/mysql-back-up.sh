
cd "$BACKUPS"
rm -f ./*.part
if [ ! -e "$BACKUP" ]; then
  ls -t ./*.sql.gz 2>/dev/null | tail -n +$((<kept> + 1)) | while read -r old; do rm -f "$old"; done
  rm -f "$SCRATCH/failed"
  { mysqldump --defaults-extra-file="$SCRATCH/client.cnf" --single-transaction --routines \
      --events --triggers --hex-blob --set-gtid-purged=OFF --no-tablespaces \
      --add-drop-database --databases "$MYSQL_DATABASE" || touch "$SCRATCH/failed"
  } | gzip > "$BACKUP.part"
  [ ! -e "$SCRATCH/failed" ] || { echo "mysqldump failed."; exit 1; }
  is_complete "$BACKUP.part" || { echo "The backup is incomplete."; exit 1; }
  expected=$(count_tables) have=$(count_dumped "$BACKUP.part")
  [ "$expected" = "$have" ] || { echo "The backup has $have of $expected tables."; exit 1; }
  sync
  mv "$BACKUP.part" "$BACKUP"
  sync
fi
is_complete "$BACKUP" || { echo "The backup is incomplete."; exit 1; }
echo "$BACKUP has $(count_dumped "$BACKUP") tables."
