rclone cat --include '/*/manifest.json' "$TARGET" || [ $? = 3 ]
