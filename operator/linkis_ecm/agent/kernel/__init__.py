"""What runs inside the user's kernel process. Must not import the agent's other rooms but `formats`."""
