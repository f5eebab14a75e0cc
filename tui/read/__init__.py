"""What the screens show, read from files and events. No Textual here."""
