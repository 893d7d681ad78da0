"""Training on another machine over SSH: the project goes there, jobs run there without the link, results come back."""
