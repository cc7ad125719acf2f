"""Cost: the monthly bill of a stack, estimated from list prices."""
