"""A trained checkpoint in the forms that others use."""
