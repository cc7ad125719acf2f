
cd "$BACKUPS"
is_complete "$BACKUP" || { echo "$BACKUP is incomplete."; exit 1; }
gzip -dc "$BACKUP" | query
have=$(count_tables) want=$(count_dumped "$BACKUP")
[ "$have" = "$want" ] || { echo "Restored $have of $want tables."; exit 1; }
echo "Restored $have tables."
