"""Training commands as one of several processes: process 0, a peer, or the start of both."""
