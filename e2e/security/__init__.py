"""Who may do what: rights, admission, logins, and the network between pods."""
