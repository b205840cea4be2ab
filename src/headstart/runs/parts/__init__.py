"""Which images are learnt from, tested on and folded, and what stays together."""
