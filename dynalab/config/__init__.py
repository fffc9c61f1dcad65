"""Configuration: typed schemas, composition, the seed grammar, identity. The only importer of Hydra."""
