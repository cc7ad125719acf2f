"""Access to the operating system: git, atomic files, locks, retries, certificates, processes."""
