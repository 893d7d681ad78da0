"""From a trained checkpoint to the Hub: what is pushed, its card, its Space, its endpoint, a leaderboard."""
