"""Text: what the model is trained to write (`labels`) and how texts are compared (`normalizers`), apart from each other."""
