"""Generated protocol stubs; `make generate` writes them."""
