"""Labs: what a lab file says, what is to be done for it, and what this machine needs."""
