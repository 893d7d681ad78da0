"""How fast tiny-audio is: training beside a plain loop, decoding, and start-up; `ta dev bench`."""
