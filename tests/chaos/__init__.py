"""Random faults under load: `make chaos SEED=1 SECONDS=120`, in containers with RUNTIME=container.

Two stacks in one LAPWING_HOME are deployed, rolled back, promoted and aborted all the time, clients
send requests, and in each round something is killed, frozen or filled. After each round everything
has to be consistent: what responds is what status, history and the desired state name. A seed
always gives the same rounds; only the moments within a deployment depend on the machine.

    plan     the rounds of a seed: actions, fault, moment
    faults   how each fault is caused, and for how long requests may fail because of it
    record   the requests sent and failed, by fault
    driver   runs the rounds and checks what has to hold
"""
