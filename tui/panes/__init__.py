"""What fills a tab or a part of a screen: each is shown a state, and shows it."""
