"""A board that is reached over ssh: its address, the way there, and the script that works there."""
