"""What a rendered environment consists of: pods, disks, load balancers, endpoints, databases."""
