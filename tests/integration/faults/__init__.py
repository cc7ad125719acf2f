"""What goes wrong, on purpose: the message, the exit status, the status afterwards, and that no
client of what ran before noticed."""
