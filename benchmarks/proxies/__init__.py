"""The proxies that a switch is measured on, one module each.

recipe    what a peer is: its program, its configuration, how its traffic is switched
contender what is measured: a running proxy with two versions of a service behind it
haproxy, nginx, caddy, traefik, kamal   the peers, as recipes
lapwing   a real installation, which deploys and rolls back
backends  the services behind the peers, and a certificate for them
"""
