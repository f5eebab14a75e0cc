"""What the commands take that judge a model beyond attacks."""
