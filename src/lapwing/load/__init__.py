"""A load client that counts every failed request.

Made to look at switches: many kinds of traffic at a steady pace, every request recorded with the
version that answered it, nothing retried in silence. Standard library and msgspec only.

    target = Target("https://company-inc.localhost:8585", address="127.0.0.1", authority=ca_pem)
    plan = Plan(target, (Traffic("new", "/api/version", workers=2, interval=0.02), ...))
    with running(plan) as client:          # a process of its own, so that nobody disturbs its clock
        client.wait_for_answers()
        ...                                # deploy, roll back, break things
    print(client.ledger().totals())

    record    what is written down of each request, and sums over it
    figures   what clients saw of a switch
    wire      HTTP/1.1 as a client speaks it; websocket beside it
    traffic   one function for each kind of traffic
    client    runs a plan: in this event loop (`drive`), or in a process of its own (`running`)
"""
