"""Services of the lab daemon, without HTTP: what joins engines, transports and guests."""
