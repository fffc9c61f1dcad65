"""The subjects of scripts/bench, a file each; `SUBJECTS` of `benches.subjects` names them."""
