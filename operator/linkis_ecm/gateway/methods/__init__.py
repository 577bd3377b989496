"""What each of our methods does. Must not know routes or another method's answer."""
