"""How the embedded default `nano` and the corpus `quickstart` are made, from sentences to shipped files."""
