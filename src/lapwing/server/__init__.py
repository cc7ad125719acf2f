"""A machine that is reached over SSH: its address, its setup, and the commands that run there.

A verb for an environment with a `host` runs on the server, with the same arguments: the client
sends the source as git objects, and the server's `lapwing` does what it would do for a stack on its
own machine. So every verb, message and JSON document is the same, and nothing is implemented twice.

ssh      the connection, by the ssh program of the system
source   the working tree, sent to the server
receive  the only command that SSH keys may run on the server
package  Lapwing as a wheel, made of the installation that runs
probe    what a server has, and what it lacks
setup    the steps that make a server of it
removal  the steps that remove Lapwing from it
"""

VERBS = {
    "deploy", "up", "promote", "abort", "rollback", "down", "status", "history", "logs", "verify",
    "run", "secret", "backup", "restore", "doctor", "maintenance", "agent", "branches",
}  # fmt: skip
"""The verbs that run on a server, for an environment that is there."""
USER = "lapwing"
"""The user of a server that runs everything."""
