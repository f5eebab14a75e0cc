"""Small widgets that several screens use, one file each."""
