"""Text as examples: corpora, their vocabulary, their tokens, and the masks of masked language modelling."""
