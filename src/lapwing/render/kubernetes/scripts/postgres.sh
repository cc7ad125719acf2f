export PGPASSWORD="$POSTGRES_PASSWORD"
pg_dump -Fc -h "$HOST" -p "$PORT" -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f dump
