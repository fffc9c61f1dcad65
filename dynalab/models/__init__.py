"""Models: plain `nn.Module`s found by name; a file a model, the networks themselves in `nets`."""
