"""What there is: devices, nodes and the links between them."""
