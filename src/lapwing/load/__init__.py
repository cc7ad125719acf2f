"""A load client that counts every failed request.

It observes switches: many kinds of traffic at a steady pace, every request recorded with the
version that responded, nothing retried silently.

    target = Target("https://company-inc.localhost:8585", address="127.0.0.1", authority=ca_pem)
    plan = Plan(target, (Traffic("new", "/api/version", workers=2, interval=0.02), ...))
    with running(plan) as client:          # a separate process, with its own event loop
        client.wait_for_answers()
        ...                                # deploy, roll back, break things
    print(client.ledger().totals())

    record       the record of each request, and sums over it
    figures      what clients saw of a switch
    connection   an HTTP/1.1 connection on h11; websocket beside it, on `websockets`
    traffic      one function for each kind of traffic
    client       runs a plan: in this event loop (`drive`), or in a separate process (`running`)
"""
