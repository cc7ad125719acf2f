"""The forge: where a release is shown and its files are kept (Gitea, Forgejo, GitHub)."""
