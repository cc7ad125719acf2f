"""The proxies that a switch is measured at, each told by a module of its own how it switches.

recipe    what a peer is: its program, its configuration, how it is told to switch
contender what is measured: a running proxy with two versions of a service behind it
haproxy, nginx, caddy, traefik, kamal   the peers, as recipes
lapwing   a real installation, which deploys and rolls back
backends  the services behind the peers, and a certificate for them
"""
