"""What operations on images do, asked by running them."""
