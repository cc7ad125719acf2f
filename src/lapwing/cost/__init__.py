"""What a stack costs a month, from the stack file and dated price files. Pure."""
