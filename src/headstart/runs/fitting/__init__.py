"""Ways of fitting: heads on features that are there, networks tuned from them."""
