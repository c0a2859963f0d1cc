"""A study: languages x systems x seeds x backbones, from instructions to the paper's tables."""
